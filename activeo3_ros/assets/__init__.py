"""What packages carry and how it is found, fetched, checked, converted and loaded: models, pictures, configuration.

Here: files and where they come from. Not here: what a model computes (`detectors`, `segmenters`, `vlm`).
"""
