# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Installs the module where there is no ROS: GPU servers, notebooks.

`pip install .` gives `import activeo3_ros`, without its messages, and the command `activeo3`. On a robot colcon builds
the package instead, from CMakeLists.txt and package.xml.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"

gpu = [
    "accelerate>=1.2",
    "modelscope>=1.25",  # the hub that has ACTIVE-o3, for `activeo3 prefetch`
    "pillow",
    "qwen-vl-utils>=0.0.10",
    "torch>=2.6",
    "torchvision",
    "transformers>=4.57",
]
detectors = [  # `type: transformers`, on a CPU as well; OWLv2 fits images with scipy where there is no torchvision
    "pillow",
    "scipy>=1.11",
    "torch>=2.6",
    "transformers>=4.57",
]
bags = [  # replay, play, and bags as the input of evaluate and train
    "lz4>=4",
    "mcap>=1.2",
    "rosbags>=0.10",
    "zstandard>=0.21",
]
evaluation = [*bags, "faster-coco-eval>=1.6.5", "jinja2>=3.1", "matplotlib>=3.8"]
train = [*gpu, "datasets>=3", "peft>=0.14", "tensorboard>=2.18", "trl>=1.6"]

setup(
    name="activeo3_ros",
    version=ElementTree.parse(HERE / "package.xml").findtext("version"),
    description="Active perception: an MLLM, or a small model, chooses where to zoom",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["activeo3_ros", "activeo3_ros.*"]),
        "activeo3_ros.config",
        "activeo3_ros.interfaces",
    ],
    package_dir={"activeo3_ros.config": "config", "activeo3_ros.interfaces": "msg"},
    package_data={
        "activeo3_ros": ["py.typed"],
        "activeo3_ros.config": ["**/*"],
        "activeo3_ros.evaluation": ["templates/*"],
        "activeo3_ros.interfaces": ["*.msg"],
    },
    install_requires=[  # with these, the default preset runs on pictures and videos after `activeo3 prefetch embedded`
        "av>=17",
        "msgspec>=0.18.5",
        "numpy>=1.26",
        "onnx>=1.17",
        "onnxruntime>=1.20",
        "opencv-python-headless>=4.8,<5",
        "pillow>=10.1",
        "pyyaml>=6",
        "rapidocr==3.10.*",
        "simplejpeg>=1.7",
        "tqdm>=4.66",
    ],
    extras_require={
        "bags": bags,
        "detectors": detectors,
        "deepspeed": [*train, "deepspeed>=0.19"],
        "eval": evaluation,
        "flash": ["flash-attn>=2.7"],  # compiles CUDA code where it has no wheel: never part of another extra
        "gpu": gpu,
        "remote": ["httpx>=0.25"],  # a model behind HTTP
        "train": train,
        "vllm": ["vllm>=0.22.1,<0.33; platform_system == 'Linux'"],  # what test_vllm.py and the benchmarks ran with
    },
    entry_points={"console_scripts": ["activeo3=activeo3_ros.cli.main:main"]},
    options={"build": {"build_base": "build/pip"}},  # build/ itself is colcon's
)
