"""How activeo3-tiny was made: drawn scenes, architecture, supervised start, GRPO study, fast decoding and weights.

Research, not part of the installed package: `PYTHONPATH=research python -m activeo3_tiny.study …` from a source
checkout. `activeo3_ros` does not import it; a training configuration names parts of it.
"""
