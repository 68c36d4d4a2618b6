"""Where to look: policies that look at a small view of a frame and propose regions to zoom into.

Here: implementations of `core.interfaces.SensingPolicy`. Not here: what a region is (`core.results`), the loop that
calls a policy (`core.loop`), what is found in a region (`detectors`, `vlm`).
"""
