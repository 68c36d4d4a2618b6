"""Widened layers compute the same sums as before, up to rounding."""

from __future__ import annotations

import pytest

from activeo3_ros.vlm.backends.alignment import MULTIPLE, align_feed_forward

torch = pytest.importorskip("torch", reason="torch is not installed")


class Gated(torch.nn.Module):
    """A gated feed-forward layer as transformers has it."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(16, width, bias=bias) for _ in range(2))
        self.down_proj = torch.nn.Linear(width, 16, bias=bias)

    def forward(self, x):
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize("bias", [False, True])
def test_a_widened_layer_gives_the_same_numbers(bias):
    torch.manual_seed(0)
    tower = torch.nn.ModuleList([Gated(95, bias), Gated(MULTIPLE, bias)]).double()
    x = torch.randn(7, 16, dtype=torch.float64)
    before = [layer(x) for layer in tower]
    assert align_feed_forward(tower) == 1, "the one that is wide enough stays as it is"
    assert tower[0].down_proj.weight.shape == (16, 128) and tower[1].down_proj.weight.shape == (16, MULTIPLE)
    for layer, expected in zip(tower, before, strict=True):
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_the_vision_tower_of_a_model_is_widened():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 100, "num_heads": 2, "out_hidden_size": 32}
    )
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower

    tower = Tower._from_config(config.vision_config).eval()
    pixels, grid = torch.randn(16, 1176), torch.tensor([[1, 4, 4]])
    with torch.no_grad():
        before = tower(pixels, grid_thw=grid).pooler_output
        assert align_feed_forward(tower) == 2
        torch.testing.assert_close(tower(pixels, grid_thw=grid).pooler_output, before, rtol=1e-4, atol=1e-5)
