"""Engines that run a vision-language model: transformers, vLLM in this process, a server with the OpenAI protocol.

Here: implementations of `vlm.engine.Engine` and modules that only they need. Not here: prompts and answers (`vlm`).
"""
