"""transformers' processor of a checkpoint, also where torchvision is missing: what `engines.pixels` is compared with.

`Qwen2_5_VLProcessor` insists on a video processor, which insists on torchvision, although single images are prepared
with PIL where that is missing. Without torchvision, the same processor is built here without its video half.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..optional import require_package

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The form of `engines.qwen.conversation`, for checkpoints that bring none for pictures."""


def load_processor(directory: str | Path) -> Any:
    """The processor in a local directory. Raises MissingPackage without transformers, OSError if there is none."""
    transformers = require_package("transformers", "to prepare pictures for training", "activeo3_ros[gpu]")
    if importlib.util.find_spec("torchvision") is not None:
        return transformers.AutoProcessor.from_pretrained(directory, local_files_only=True)
    return image_only_processor_class().from_pretrained(directory, local_files_only=True)


def image_only_processor_class() -> type[Any]:
    """A `Qwen2_5_VLProcessor` for pictures alone; made on demand, since transformers need not be installed."""
    from transformers import Qwen2_5_VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class ImageOnlyProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """Prepares text and pictures as its base does; videos are refused by the lack of their processor."""

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
        ) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return ImageOnlyProcessor
