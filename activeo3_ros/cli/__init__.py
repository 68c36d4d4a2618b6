"""The command `activeo3`, one file a subcommand; the table in `cli.main` lists them.

Here: arguments, messages, exit codes. Not here: anything that a program would want to call.
"""
