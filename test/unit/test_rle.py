"""The mask encodings, against their definition, against COCO's own tools, and against damaged data."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from activeo3_ros.codecs import rle as masks

any_mask = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    return ((x - width / 2) / (width / 2)) ** 2 + ((y - height / 2) / (height / 2)) ** 2 <= 1


@settings(deadline=None)
@given(any_mask)
def test_rle_comes_back_as_it_was(mask):
    assert np.array_equal(masks.decode_rle(masks.encode_rle(mask), *mask.shape), mask)


@settings(deadline=None)
@given(any_mask)
def test_bits_come_back_as_they_were(mask):
    assert np.array_equal(masks.decode_bits(masks.encode_bits(mask), *mask.shape), mask)


@settings(deadline=None)
@given(any_mask)
def test_rle_is_byte_for_byte_what_coco_tools_write(mask):
    pycocotools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    assert masks.encode_rle(mask) == pycocotools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@settings(deadline=None)
@given(any_mask)
def test_rle_is_byte_for_byte_what_faster_coco_eval_writes(mask):
    faster = pytest.importorskip("faster_coco_eval.core.mask", reason="faster-coco-eval is not installed")
    assert masks.encode_rle(mask) == faster.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_a_known_mask_has_the_known_code():
    # Column by column: 2 zeros, 3 ones, 1 zero.
    assert masks.encode_rle([[0, 1, 1], [0, 1, 0]]) == b"231"


def test_a_long_run_takes_several_characters():
    mask = np.ones((100, 100), bool)
    assert masks.encode_rle(mask) == b"0`h9"
    assert np.array_equal(masks.decode_rle(b"0`h9", 100, 100), mask)


def test_the_encoding_field_of_a_message_says_how_to_read_it():
    mask = ellipse(9, 13)
    for encoding, data in (
        (masks.ENCODING_RLE, masks.encode_rle(mask)),
        (masks.ENCODING_BITS, masks.encode_bits(mask)),
    ):
        message = types.SimpleNamespace(height=9, width=13, encoding=encoding, data=data)
        assert np.array_equal(masks.decode(message), mask)


def test_an_unknown_encoding_is_an_error():
    with pytest.raises(ValueError, match="unknown mask encoding 7"):
        masks.decode(types.SimpleNamespace(height=1, width=1, encoding=7, data=b""))


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_damaged_data_is_an_error_and_never_a_wrong_size(data, height, width):
    for decode in (masks.decode_rle, masks.decode_bits):
        try:
            assert decode(data, height, width).shape == (height, width)
        except ValueError:
            pass


def test_a_mask_that_claims_to_be_huge_is_refused_before_memory_is_set_aside():
    with pytest.raises(ValueError, match="outside"):
        masks.decode_rle(b"0", 1_000_000, 1_000_000)


def test_a_typical_object_takes_a_few_hundred_bytes():
    car, person = ellipse(120, 200), ellipse(180, 60)
    assert len(masks.encode_rle(car)) < 500
    assert len(masks.encode_rle(person)) < 300
