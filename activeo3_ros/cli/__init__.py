"""The command `activeo3`, one file a subcommand; `cli.main` has the table of them.

Here: arguments, messages, exit codes. Not here: functions that a program would want to call.
"""
