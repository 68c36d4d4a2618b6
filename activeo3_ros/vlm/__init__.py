"""Vision-language models: prompts, parsing of answers, coordinates, model families, batching.

Here, whichever library runs a model: `engine` (the interface), `engine_registry` (from settings to a running engine),
`dynamic_batching` and `continuous_batching`, `out_of_memory`, `families` (image sizes, coordinates, chat template),
`prompts`, `answer_grammar`, `parsing`, `reply_notes`, and `task`, the task model. The libraries are in `backends`. Not
here: the policy that chooses regions with a model (`policies.mllm`).
"""
