"""What runs a vision-language model: transformers, vLLM in this process, or a server that speaks the OpenAI protocol.

Here: implementations of `vlm.engine.Engine` and what only they need. Not here: prompts and answers (`vlm`).
"""
