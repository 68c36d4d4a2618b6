"""Training policies that choose regions: rewards, training rows and GRPO.

Here: reward terms, rows and the builders that make them of data sets and bags, the trainer and its configuration. Not
here: metrics that judge presets (`evaluation`), and activeo3-tiny, its drawn scenes and its study (`research/`).
"""
