"""Where to zoom: policies that propose regions from a small view of a frame.

Here: implementations of `core.interfaces.SensingPolicy`. Not here: the record of a region (`core.results`), the loop
(`core.loop`), models that find objects in a region (`detectors`, `vlm`).
"""
