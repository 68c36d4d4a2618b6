"""Answers that depend on nothing but their place among all of a step, so that runs of any number of processes compare.

As `speed_up` of a configuration: `fixed_answers:write_fixed_answers`.
"""

from __future__ import annotations

from typing import Any

import trl

ANSWERS = (
    '<think>a</think><answer>[{"bbox_2d": [0, 40, 50, 80], "label": "lamp"}]</answer>',
    '<answer>[{"bbox_2d": [0, 0, 9, 9]}]',
    '<think>b</think><answer>[{"bbox_2d": [30, 30, 100, 90], "label": "lamp"}]</answer>',
    "nothing",
)


def write_fixed_answers() -> None:
    """Let TRL's trainer take these instead of generating."""
    trl.GRPOTrainer._generate_single_turn = fixed_answers


def fixed_answers(self: Any, prompt_ids: Any, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
    """In place of `GRPOTrainer._generate_single_turn`."""
    first = self.accelerator.process_index * len(prompt_ids)
    texts = [ANSWERS[(first + index) % len(ANSWERS)] for index in range(len(prompt_ids))]
    return [[*self.processing_class.tokenizer(text).input_ids, self._tokenizer.eos_token_id] for text in texts], None
