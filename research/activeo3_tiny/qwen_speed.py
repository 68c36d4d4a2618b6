"""Makes Qwen2.5-VL fast for batches of many small pictures, with the same results.

For each picture of a batch, transformers makes one attention call a layer and works out positions and windows in Python
loops, and for the patches it runs a 3-D convolution whose stride is its kernel, which is a matrix product.
`speed_up_qwen` replaces these class-wide; whatever is not one picture a row, or pictures of different sizes, still goes
the original way.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from typing import Any

import numpy as np

from activeo3_ros.core.optional import require_package

from . import qwen_decoding

logger = logging.getLogger(__name__)

_done = False


def speed_up_qwen() -> None:
    """Replace the methods, once for the process."""
    global _done
    if _done:
        return
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    modeling = require_package("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "to train", "activeo3_ros[train]")
    attention, embedding, model, tower = (
        modeling.Qwen2_5_VLVisionAttention,
        modeling.Qwen2_5_VisionPatchEmbed,
        modeling.Qwen2_5_VLModel,
        modeling.Qwen2_5_VisionTransformerPretrainedModel,
    )
    attend_one_by_one, index_one_by_one, see_one_by_one = attention.forward, model.get_rope_index, tower.forward

    def see(self: Any, hidden_states: Any, grid_thw: Any, **kwargs: Any) -> Any:
        if not {"position_ids", "window_index", "cu_window_seqlens", "equal_pictures"} & set(kwargs):
            kwargs |= where_patches_are(self, grid_thw, hidden_states.device)
        return see_one_by_one(self, hidden_states, grid_thw, **kwargs)

    def attend(
        self: Any,
        hidden_states: Any,
        cu_seqlens: Any,
        position_embeddings: Any = None,
        equal_pictures: int = 0,
        **kwargs: Any,
    ) -> Any:
        total, pictures = hidden_states.shape[0], cu_seqlens.shape[0] - 1
        flash = "flash" in str(self.config._attn_implementation)
        if flash or equal_pictures != pictures:  # as in blocks that attend to windows
            return attend_one_by_one(self, hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        query, key, value = self.qkv(hidden_states).reshape(total, 3, self.num_heads, -1).unbind(1)
        query, key = modeling.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (
            each.reshape(pictures, total // pictures, self.num_heads, -1).transpose(1, 2).to(value.dtype)
            for each in (query, key, value)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(total, -1))

    def embed(self: Any, hidden_states: Any) -> Any:
        weight = self.proj.weight
        flat = hidden_states.reshape(-1, weight[0].numel()).to(weight.dtype)
        return torch.nn.functional.linear(flat, weight.reshape(weight.shape[0], -1))

    def index(
        self: Any,
        input_ids: Any,
        mm_token_type_ids: Any = None,
        image_grid_thw: Any = None,
        video_grid_thw: Any = None,
        second_per_grid_ts: Any = None,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Any:
        merge = self.config.vision_config.spatial_merge_size
        one_each = (
            mm_token_type_ids is not None
            and video_grid_thw is None
            and image_grid_thw is not None
            and len(image_grid_thw) == len(input_ids)
            and bool(((mm_token_type_ids == 1).sum(1) == image_grid_thw.prod(1) // merge**2).all())
        )
        if not one_each:
            return index_one_by_one(
                self,
                input_ids,
                mm_token_type_ids=mm_token_type_ids,
                image_grid_thw=image_grid_thw,
                video_grid_thw=video_grid_thw,
                second_per_grid_ts=second_per_grid_ts,
                attention_mask=attention_mask,
                **kwargs,
            )
        return positions_of_one_picture(input_ids, mm_token_type_ids == 1, image_grid_thw, attention_mask, merge)

    embedding.forward, model.get_rope_index = embed, index
    if importlib.util.find_spec("transformers.vision_utils"):  # older versions cannot be told where patches are
        attention.forward, tower.forward = attend, see
    whole = modeling.Qwen2_5_VLForConditionalGeneration
    generate_any = whole.generate
    failed: list[Exception] = []

    def generate(
        self: Any,
        inputs: Any = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        **kwargs: Any,
    ) -> Any:
        ids = kwargs.pop("input_ids", inputs)
        if not failed and ids is not None and qwen_decoding.fits(self, ids, generation_config, kwargs):
            try:
                return qwen_decoding.decode(
                    self, ids, generation_config, logits_processor or (), stopping_criteria or (), kwargs
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # such as a kernel that a device lacks
                failed.append(error)
                logger.warning("decoding goes on with transformers' generate: %s", str(error).splitlines()[0])
        return generate_any(
            self,
            ids,
            generation_config=generation_config,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            **kwargs,
        )

    whole.generate = generate
    _done = True


def where_patches_are(tower: Any, grids: Any, device: Any) -> dict[str, Any]:
    """Positions and windows of patches, from the `(n, 3)` grids of pictures; each size is worked out once.

    `equal_pictures` is their number if all have as many patches, else 0; it saves each block from asking the GPU.
    """
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    helpers = require_package("transformers.vision_utils", "to train", "activeo3_ros[train]")
    shapes = [tuple(shape) for shape in grids.tolist()]
    first = {shape: index for index, shape in reversed(list(enumerate(shapes)))}
    merge = tower.spatial_merge_size
    positions, windows, ends = {}, {}, {}
    for shape, index in first.items():
        grid = grids[index : index + 1].cpu()
        positions[shape] = helpers.get_vision_position_ids(grid, merge)
        windows[shape], ends[shape] = helpers.get_vision_window_index(grid, merge, tower.window_size, tower.patch_size)
    sizes = [math.prod(shape) for shape in shapes]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return {
        "position_ids": torch.cat([positions[shape] for shape in shapes]).to(device),
        "window_index": torch.cat(
            [windows[shape] + start // merge**2 for shape, start in zip(shapes, starts, strict=True)]
        ).to(device),
        "cu_window_seqlens": torch.cat(
            [torch.zeros(1, dtype=torch.int32)]
            + [ends[shape][1:].int() + start for shape, start in zip(shapes, starts, strict=True)]
        ).to(device, torch.int32),
        "equal_pictures": len(sizes) if len(set(sizes)) == 1 and all(shape[0] == 1 for shape in shapes) else 0,
    }


def positions_of_one_picture(
    input_ids: Any, picture: Any, grids: Any, attention_mask: Any, merge: int
) -> tuple[Any, Any]:
    """The `(3, batch, tokens)` positions of Qwen2.5-VL for rows of text with one picture each, and `(batch, 1)`
    offsets.

    picture: `(batch, tokens)` bool, the tokens of the picture, which follow each other. grids: `(batch, 3)`, in
    patches.
    """
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    valid = attention_mask.bool() if attention_mask is not None else torch.ones_like(picture)
    order = valid.long().cumsum(1) - 1
    rows, columns = (grids[:, axis, None].to(order.device) // merge for axis in (1, 2))
    start = order.gather(1, picture.int().argmax(1, keepdim=True))
    inside = order - start
    shift = torch.maximum(rows, columns) - rows * columns
    text = order + torch.where(inside >= rows * columns, shift, torch.zeros_like(shift))
    tall, wide = start + torch.div(inside, columns, rounding_mode="floor"), start + inside % columns
    positions = torch.stack([torch.where(picture, axis, text) for axis in (start.expand_as(order), tall, wide)])
    return positions.masked_fill(~valid, 0), shift
