"""Patches times filters are the convolution, whatever its strides, dilations, padding and groups."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxq.patches import patches, window_of
from tests.graphs import graph, model, value

RNG = np.random.default_rng(11)

CASES = {
    "pointwise": ((2, 6, 5, 7), (4, 6, 1, 1), {}),
    "depthwise, stride 2": ((2, 6, 9, 8), (6, 1, 3, 3), {"group": 6, "pads": [1, 0, 1, 2], "strides": [2, 1]}),
    "grouped, dilated": ((1, 4, 9, 9), (6, 2, 3, 2), {"group": 2, "dilations": [2, 3]}),
    "one axis": ((3, 4, 12), (5, 4, 3), {"strides": [2], "pads": [2, 1]}),
    "same upper": ((1, 3, 8, 7), (2, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 3, 8, 7), (2, 3, 4, 3), {"auto_pad": "SAME_LOWER"}),
    "valid": ((1, 3, 8, 7), (2, 3, 4, 3), {"auto_pad": "VALID"}),
}


def convolve(image: np.ndarray, filters: np.ndarray, attributes: dict) -> np.ndarray:
    """What ONNX's own evaluator computes, float32 [positions, M]."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    made = model(
        graph(
            [node],
            [value("x", image.shape), value("w", filters.shape)],
            [value("y", ["n", "m", "h", "w"][: image.ndim])],
        )
    )
    y = ReferenceEvaluator(made).run(None, {"x": image, "w": filters})[0]
    return np.moveaxis(y, 1, -1).reshape(-1, filters.shape[0])


def in_groups(image: np.ndarray, filters: np.ndarray, attributes: dict, **options: int) -> np.ndarray:
    """Patches of each group times its filters, float32 [positions, M]."""
    node = ir.node("Conv", [None, None], attributes=attributes)
    window = window_of(node, filters.shape)
    rows = patches(image, window, seed=0, **options)
    parts = np.split(filters.reshape(len(filters), -1), window.group)
    return np.concatenate([x @ part.T for x, part in zip(rows, parts, strict=True)], axis=1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_patches_times_filters_are_the_convolution(case):
    shape, filter_shape, attributes = case
    image, filters = (RNG.standard_normal(size).astype(np.float32) for size in (shape, filter_shape))
    expected = convolve(image, filters, attributes)
    got = in_groups(image, filters, attributes)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert not np.allclose(np.roll(got, 1, axis=0), expected, atol=1e-4), "positions must be told apart"


def test_a_part_of_the_positions_is_drawn_from_all_of_them():
    image, filters = (RNG.standard_normal(size).astype(np.float32) for size in ((2, 4, 20, 20), (4, 4, 3, 3)))
    every = in_groups(image, filters, {})
    some = in_groups(image, filters, {}, limit=100)
    assert some.shape == (100, 4)
    places = [int(np.abs(every - row).max(axis=1).argmin()) for row in some]
    assert np.abs(every[places] - some).max() < 1e-4
    assert sorted(set(places)) == places, "in order, none twice"
    assert places[0] < 100, "over both images"
    assert places[-1] > 500, "over both images"
