"""int32 biases: the product scale, and room for them where a channel's weights are tiny."""

import numpy as np
import pytest

from onnxq.affine import QuantizedWeight, dequantize
from onnxq.plugin.contracts import WeightEvidence
from onnxq.qdq.bias import Bias, corrected, quantize_bias, with_headroom
from onnxq.scheme import Scheme

PER_AXIS = Scheme(8, True, "per_axis", scale_type="FLOAT")
PER_TENSOR = Scheme(8, True, "per_tensor", scale_type="FLOAT")
RNG = np.random.default_rng(0)


def quantized(weight, scheme=PER_AXIS):
    axis = 0 if scheme.granularity == "per_axis" else None
    scales = np.atleast_2d(np.abs(weight).max(axis=axis) / 127).astype(np.float32)
    return QuantizedWeight(np.rint(weight / scales).astype(np.int8), scales, None, scheme)


@pytest.mark.parametrize("scheme", [PER_AXIS, PER_TENSOR], ids=str)
def test_codes_times_the_product_scale_are_the_bias(scheme):
    weight = RNG.standard_normal((16, 5)).astype(np.float32)
    bias = Bias(RNG.standard_normal(5).astype(np.float32), 0.02)
    made = quantized(weight, scheme)
    codes, scales = quantize_bias(bias, made)
    assert codes.dtype == np.int32
    assert scales.shape == ((5,) if scheme is PER_AXIS else ())
    np.testing.assert_allclose(scales.reshape(-1), made.scales.reshape(-1) * np.float32(0.02), rtol=1e-6)
    assert (np.abs(codes * scales.astype(np.float64) - bias.values) <= scales / 2 * 1.001).all()
    assert not (np.abs(codes * scales.astype(np.float64) * 1.01 - bias.values) <= scales / 2 * 1.001).all()


def test_a_weight_with_room_enough_is_left_alone():
    made = quantized(RNG.standard_normal((16, 5)).astype(np.float32))
    assert with_headroom(dequantize(made), made, [Bias(np.ones(5, np.float32), 0.02)]) is made


@pytest.mark.parametrize("scheme", [PER_AXIS, PER_TENSOR], ids=str)
def test_tiny_weights_beside_a_large_bias_get_coarser(scheme):
    weight = RNG.standard_normal((16, 3)).astype(np.float32) * np.float32([1, 1e-9, 1] if scheme is PER_AXIS else 1e-9)
    bias = Bias(np.float32([1, 50, -2]), 0.001)
    made = quantized(weight, scheme)
    overflown, _ = quantize_bias(bias, made)
    assert np.abs(overflown.astype(np.int64)).max() >= 2**31 - 1, "the case must need the room"
    roomy = with_headroom(weight, made, [bias])
    codes, scales = quantize_bias(bias, roomy)
    assert np.abs(codes).max() <= 2**30 * 1.001
    np.testing.assert_allclose(codes * scales.astype(np.float64), bias.values, rtol=1e-5)
    if scheme is PER_AXIS:  # the other channels keep their codes
        np.testing.assert_array_equal(roomy.codes[:, [0, 2]], made.codes[:, [0, 2]])
        assert roomy.scales[0, 1] > made.scales[0, 1]


def test_the_widest_of_all_readers_decides():
    weight = np.full((4, 1), 1e-9, np.float32)
    made = quantized(weight)
    small, large = Bias(np.float32([1]), 0.01), Bias(np.float32([100]), 0.01)
    assert with_headroom(weight, made, [small, large]).scales == with_headroom(weight, made, [large]).scales


def test_the_corrected_bias_keeps_the_mean_of_every_channel():
    """Two groups of three channels, each with inputs of its own."""
    weight = RNG.standard_normal((16, 6)).astype(np.float32)
    rough = (np.rint(weight * 2) / 2).astype(np.float32)
    inputs = [RNG.standard_normal((200, 16)) + shift for shift in (1.0, -2.0)]
    bias = Bias(RNG.standard_normal(6).astype(np.float32), 0.02)

    def drift(values, evidence):
        used = corrected(Bias(values, 0.02), weight, rough, evidence).values
        outputs = [
            rows @ (rough - weight)[:, columns].astype(np.float64) + (used - values)[columns]
            for rows, columns in zip(inputs, (slice(3), slice(3, 6)), strict=True)
        ]
        return np.abs(np.concatenate([part.mean(axis=0) for part in outputs])).max()

    means = [WeightEvidence(mean=rows.mean(axis=0)) for rows in inputs]
    assert drift(bias.values, means) < 1e-5
    assert drift(bias.values, means[::-1]) > 0.1, "the groups must be told apart"
    assert drift(bias.values, []) > 0.1, "the case must need it"
    assert corrected(bias, weight, rough, [WeightEvidence()]) is bias
