"""Codecs: a `Result` to a message, CDR, JSON or a drawing, masks to run lengths, image messages and files to arrays.

Here: pure functions, both directions of a format in one file. Not here: topics and publishers (`node`), files of
messages (`bags`).
"""
