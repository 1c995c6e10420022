"""Groups of a convolution are quantized with the evidence of their own inputs."""

import numpy as np
from onnxq_plugins.gptq import Gptq
from onnxq_plugins.rtn import RoundToNearest

from onnxq.affine import dequantize
from onnxq.groups import quantize_groups
from onnxq.plugin.contracts import WeightEvidence
from onnxq.scheme import Scheme

PER_AXIS = Scheme(4, True, "per_axis", scale_type="FLOAT")
RNG = np.random.default_rng(2)
WEIGHT = RNG.standard_normal((18, 8)).astype(np.float32)
INPUTS = [RNG.standard_normal((300, 18)) @ RNG.standard_normal((18, 18)) for _ in range(4)]
SEEN = [WeightEvidence(mean=x.mean(axis=0), gram=x.T @ x / len(x)) for x in INPUTS]


def output_error(quantized):
    parts = np.split(dequantize(quantized) - WEIGHT, 4, axis=1)
    return sum(np.square(x @ part).sum() for x, part in zip(INPUTS, parts, strict=True))


def test_each_group_is_rounded_for_its_own_inputs():
    right = output_error(quantize_groups(Gptq(), WEIGHT, PER_AXIS, SEEN))
    wrong = output_error(quantize_groups(Gptq(), WEIGHT, PER_AXIS, SEEN[::-1]))
    blind = output_error(quantize_groups(Gptq(), WEIGHT, PER_AXIS, ()))
    assert right < 0.7 * blind
    assert right < 0.7 * wrong


def test_a_method_that_asks_for_nothing_gets_nothing():
    class Watching(RoundToNearest):
        def quantize(self, weight, scheme, evidence):
            assert evidence is None
            assert weight.shape == WEIGHT.shape
            return super().quantize(weight, scheme, evidence)

    made = quantize_groups(Watching(), WEIGHT, PER_AXIS, SEEN)
    np.testing.assert_array_equal(made.codes, RoundToNearest().quantize(WEIGHT, PER_AXIS, None).codes)


def test_one_scale_for_all_groups_is_found_without_evidence():
    per_tensor = Scheme(8, True, "per_tensor", scale_type="FLOAT")
    made = quantize_groups(Gptq(), WEIGHT, per_tensor, SEEN)
    assert made.scales.shape == (1, 1)
