"""The demo: a filmed photograph through a player, the node and a recorder, compared with baselines.

Here: the film, the three processes, the comparison, the files that the demo writes. Not here: its command (`cli.demo`).
"""
