"""Vision-language models: prompts, parsing of answers, coordinates, model families, batching.

Here: all that speaks to a language model, whichever library runs it. The libraries are in `backends`.
"""
