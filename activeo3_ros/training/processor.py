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

"""A processor for TRL, made of the engine's parts, so that a trainer prompts exactly as the node does.

transformers' own `Qwen2_5_VLProcessor` insists on torchvision for its video half and preprocesses each copy of a
picture anew, eight times for a group of eight answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.optional import require_package
from ..vlm.backends.preprocessing import PixelFormat, patches
from ..vlm.families import IMAGE_TOKEN, conversation

CHECKPOINT_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""The files of a checkpoint beside its weights and their configuration."""


def make_processor(directory: Path, pixel_format: PixelFormat, device: str = "cpu") -> Any:
    """Make a processor for a checkpoint.

    Args:
        directory: Of the checkpoint.
        pixel_format: How the model takes pixels.
        device: Patches of pictures are put on it.

    Returns:
        A `ProcessorMixin` of transformers.

    Raises:
        MissingPackageError: A package is not installed.
    """
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    transformers = require_package("transformers", "to train", "activeo3_ros[train]")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    tokenizer.padding_side = "left"

    class Processor(transformers.processing_utils.ProcessorMixin):  # type: ignore[misc, name-defined, unused-ignore]
        """See the module. It is no subclass of Qwen's for the reason given there."""

        attributes = ["tokenizer"]  # noqa: RUF012
        tokenizer_class = "AutoTokenizer"

        def __init__(self) -> None:
            self.tokenizer = tokenizer
            self.chat_template = tokenizer.chat_template
            self.image_token = IMAGE_TOKEN
            self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

        def apply_chat_template(
            self, conversation: Any, tokenize: bool = False, return_dict: bool = False, **kwargs: Any
        ) -> Any:
            single = not conversation or isinstance(conversation[0], dict)
            talks = [conversation] if single else conversation
            texts = [_as_text(talk) for talk in talks]
            if not tokenize:
                return texts[0] if single else texts
            encoded = self(text=texts, images=[_pictures(talk) for talk in talks])
            return encoded if return_dict else encoded["input_ids"]

        def __call__(
            self,
            text: Any = None,
            images: Any = None,
            padding: Any = False,
            return_tensors: str | None = None,
            **kwargs: Any,
        ) -> Any:
            texts = [text] if isinstance(text, str) else list(text)
            flat = [each for group in images for each in (group if isinstance(group, (list, tuple)) else [group])]
            pixels, grids = _patches_once(flat, pixel_format, torch.device(device))
            cells = (grids.prod(1) // pixel_format.merge**2).tolist()
            ids = []
            for each, count in zip(texts, cells, strict=False):
                tokens = self.tokenizer(each, add_special_tokens=False).input_ids
                at = tokens.index(self.image_token_id)
                ids.append([*tokens[:at], *[self.image_token_id] * count, *tokens[at + 1 :]])
            kinds = [[int(token == self.image_token_id) for token in row] for row in ids]
            longest = max(map(len, ids))
            mask = [[0] * (longest - len(row)) + [1] * len(row) if padding else [1] * len(row) for row in ids]
            if padding:
                ids = [[self.tokenizer.pad_token_id] * (longest - len(row)) + row for row in ids]
                kinds = [[0] * (longest - len(row)) + row for row in kinds]
            values: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}
            if return_tensors == "pt":
                values = {name: torch.tensor(value) for name, value in values.items()}
            return transformers.BatchFeature({**values, "pixel_values": pixels, "image_grid_thw": grids})

        def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
            return list(self.tokenizer.batch_decode(*args, **kwargs))

        def decode(self, *args: Any, **kwargs: Any) -> str:
            return str(self.tokenizer.decode(*args, **kwargs))

        def save_pretrained(self, save_directory: Any, **kwargs: Any) -> list[str]:
            """Copy the files of the start, so that a checkpoint loads like any other."""
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            there = [directory / name for name in CHECKPOINT_FILES if (directory / name).is_file()]
            return [shutil.copy(path, save_directory) for path in there]

    return Processor()


def chat(prompt: Any) -> list[dict[str, Any]]:
    """Convert an engine's `Prompt` to the messages that TRL takes; the picture comes from the column `image`.

    Args:
        prompt: A `vlm.engine.Prompt`.

    Returns:
        The messages of system and user.
    """
    content = [{"type": "text", "text": prompt.before}, {"type": "image"}, {"type": "text", "text": prompt.after}]
    system = [{"type": "text", "text": prompt.system}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def _as_text(messages: Sequence[dict[str, Any]]) -> str:
    """The conversation as the engine writes it, up to where the model answers."""
    system, user = (
        "".join(_part(part) for part in message["content"])
        if not isinstance(message["content"], str)
        else message["content"]
        for message in messages[:2]
    )
    before, _, after = user.partition(IMAGE_TOKEN)
    return conversation(system, before, after, "")


def _part(part: dict[str, Any]) -> str:
    return IMAGE_TOKEN if part["type"] == "image" else str(part["text"])


def _pictures(messages: Sequence[dict[str, Any]]) -> list[Any]:
    return [
        part["image"]
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]


def _patches_once(pictures: Sequence[Any], pixel_format: PixelFormat, device: Any) -> tuple[Any, Any]:
    """Patches and grids of all pictures; equal pictures are preprocessed once."""
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    arrays = [np.asarray(picture.convert("RGB"))[..., ::-1] for picture in pictures]
    keys = [(array.shape, array.tobytes()) for array in arrays]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    order = {index: rank for rank, index in enumerate(sorted(first.values()))}
    pixels, grids = patches([arrays[index] for index in order], pixel_format, device)
    pieces = torch.split(pixels, grids.prod(1).tolist())
    ranks = [order[first[key]] for key in keys]
    return torch.cat([pieces[rank] for rank in ranks]), grids[torch.tensor(ranks, device=grids.device)]
