"""Bags: reading, salvaging, writing, pacing, and the offline run over one. Needs no ROS.

Here: `.mcap` and `.db3` files and what lies in them. Not here: publishing a bag on topics (`node`), the encodings of a
Result (`codecs`).
"""
