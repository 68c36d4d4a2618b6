"""Judging presets: data sets, protocols, metrics with confidence intervals, the report.

Here: everything that compares results with a ground truth. Not here: rewards (`training`).
"""
