"""Drafts: the tokens that follow from the answer grammar, and none that only the model knows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.assets.weights import local_model
from activeo3_ros.vlm.backends.drafts import AnswerDrafts, likely_continuation
from activeo3_ros.vlm.backends.vllm_drafts import VllmDrafts

BOX = '{"bbox_2d": [12, 40, 222, 601], "label": "car"}'


@pytest.mark.parametrize(
    ("written", "continuation"),
    [
        ("```json\n[", '{"bbox_2d": ['),
        ('<answer>\n[{"bbo', 'x_2d": ['),
        ('[{"bbox_2d": [', ""),  # digits are the model's
        ('[{"bbox_2d": [12', ", "),
        ('[{"bbox_2d": [12,', " "),
        ('[{"bbox_2d": [12, 40', ", 12"),  # x2 often begins as x1
        ('[{"bbox_2d": [12, 40, 222', ", 40"),
        ('[{"bbox_2d": [12, 40, 222, ', ""),
        ('[{"bbox_2d": [12, 40, 222, 601', '], "label": "'),
        ('[{"bbox_2d": [12, 40, 222, 601], "la', 'bel": "'),
        ('[{"bbox_2d": [12, 40, 222, 601], "label": "', ""),  # the first label is the model's too
        (f"[{BOX[:-1]}", '}, {"bbox_2d": ['),
        (f"[{BOX}", ', {"bbox_2d": ['),
        (f'[{BOX}, {{"bbox_2d": [1, 2, 3, 4', '], "label": "car"}, {"bbox_2d": ['),
        (f'[{BOX}, {{"bbox_2d": [1, 2, 3, 4], "label": "c', 'ar"}, {"bbox_2d": ['),
        (f'[{BOX}, {{"bbox_2d": [1, 2, 3, 4], "label": "tr', ""),
        (f"<answer>\n[{BOX}]", "\n</answer>"),
        (f"```json\n[{BOX}]\n", "```"),
        ('[{"point_2d": [12, 40', '], "label": "'),
        ("I look at the far road", ""),
        ("", ""),
    ],
)
def test_the_fixed_parts_of_an_answer_are_drafted(written, continuation):
    assert likely_continuation(written) == continuation


@given(st.text(alphabet='[]{}",: \n_2abdoxelnpit019`<>/swr', max_size=200))
def test_any_text_has_a_continuation(text):
    assert isinstance(likely_continuation(text), str)


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.AutoTokenizer.from_pretrained(local_model("tiny/start"))


def steps_of(tokenizer, prefix: str, answer: str, count: int) -> tuple[int, int]:
    """Tokens of an answer, and the steps in which a model that wants to write it does so with drafts."""
    conversation = tokenizer(f"<|im_start|>assistant\n{prefix}", add_special_tokens=False).input_ids
    wanted = tokenizer(answer, add_special_tokens=False).input_ids
    drafts = AnswerDrafts(tokenizer, count)
    written, steps = 1, 1  # the first token comes with the reading of the prompt
    while written < len(wanted):
        draft = drafts.draft([*conversation, *wanted[:written]])
        assert len(draft) == count, "steps of one size can be CUDA graphs"
        agreed = 0
        while agreed < count and wanted[written + agreed : written + agreed + 1] == draft[agreed : agreed + 1]:
            agreed += 1
        written, steps = written + agreed + 1, steps + 1
    return len(wanted), steps


def test_an_answer_of_three_boxes_takes_half_as_many_steps_as_tokens(tokenizer):
    answer = '212, 401, 603, 702], "label": "car"}, {"bbox_2d": [12, 45, 302, 61], "label": "car"}, '
    answer += '{"bbox_2d": [404, 388, 988, 655], "label": "person"}]\n</answer>'
    tokens, steps = steps_of(tokenizer, '<answer>\n[{"bbox_2d": [', answer, 7)
    assert steps <= 0.55 * tokens


def test_a_text_without_a_grammar_is_written_token_by_token(tokenizer):
    tokens, steps = steps_of(tokenizer, "<think>", "I zoom into three regions. Small targets may be far away.", 7)
    assert steps == tokens


def test_vllm_gets_a_draft_for_each_request_that_wrote(tokenizer, monkeypatch):
    config = SimpleNamespace(
        model_config=SimpleNamespace(model=str(local_model("tiny/start")), tokenizer=None, max_model_len=64),
        speculative_config=SimpleNamespace(num_speculative_tokens=4),
    )
    ids = tokenizer('<|im_start|>assistant\n[{"bbox_2d": [12', add_special_tokens=False).input_ids
    table = np.zeros((3, 64), np.int32)
    table[:, : len(ids)] = ids
    lengths = np.array([len(ids), len(ids), 64], np.int32)
    drafts = VllmDrafts(config).propose([[1], [], [1]], lengths, table, slot_mappings=None)
    assert tokenizer.decode(drafts[0]).startswith(", ") and len(drafts[0]) == 4
    assert drafts[1] == [], "a request that still reads its prompt gets none"
    assert drafts[2] == [], "one that is as long as it may be gets none"
