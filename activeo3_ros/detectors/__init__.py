"""What is there: detectors, the text reader, and the vocabulary that maps words of a query to classes.

Here: models that find objects or text in a view, and the task models made of them. Not here: masks (`segmenters`),
vision-language models (`vlm`), merging of views (`core.evidence`).
"""
