"""A result and what it becomes: message, JSON, run-length encoded mask, picture; and pictures as they come in.

Here: pure functions, the way out and the way back in one file each. Not here: topics and publishers (`node`), files of
messages (`bags`).
"""
