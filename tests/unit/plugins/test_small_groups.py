"""Columns with Gram matrices of their own: as good as one by one, and at a point where no single move helps."""

from itertools import product

import numpy as np
import pytest
from onnxq_plugins.clip_search import clip_search
from onnxq_plugins.gptq import Gptq
from onnxq_plugins.grouping import assemble
from onnxq_plugins.small_groups import round_columns

from onnxq.affine import dequantize
from onnxq.groups import quantize_groups
from onnxq.plugin.contracts import WeightEvidence
from onnxq.scheme import Scheme

SCHEMES = [Scheme(bits, symmetric, "per_axis", scale_type="FLOAT") for bits, symmetric in ((3, True), (4, False))]


def case(k, n, seed=0):
    """A weight [k, n] and Gram matrices [n, k, k] of correlated inputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((n, 50, k)) @ rng.standard_normal((n, k, k))
    return rng.standard_normal((k, n)).astype(np.float32), inputs.transpose(0, 2, 1) @ inputs / 50


def errors(weight, made, grams):
    difference = dequantize(made).astype(np.float64) - weight
    return np.array([d @ gram @ d for d, gram in zip(difference.T, grams, strict=True)])


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_beats_clip_search_and_equals_one_by_one(scheme):
    weight, grams = case(9, 60)
    seen = [WeightEvidence(second_moment=np.diag(gram).copy(), gram=gram) for gram in grams]
    plain = errors(weight, assemble(*clip_search(weight, scheme), k=9, scheme=scheme), grams)
    apart = [Gptq().quantize(weight[:, [at]], scheme, one) for at, one in enumerate(seen)]
    single = sum(errors(weight[:, [at]], made, grams[[at]])[0] for at, made in enumerate(apart))
    together = errors(weight, quantize_groups(Gptq(), weight, scheme, seen), grams)
    assert (together <= plain * (1 + 1e-9)).all()
    assert together.sum() < 0.6 * plain.sum()
    assert together.sum() < 1.1 * single
    assert errors(weight, round_columns(weight, grams[::-1], scheme), grams).sum() > together.sum() * 1.5


def test_it_comes_near_to_the_best_codes_of_all():
    """Three rows of 2 bits: all 64 combinations can be tried, at the scale it chose."""
    scheme = Scheme(2, False, "per_axis", scale_type="FLOAT")
    weight, grams = case(3, 40, seed=1)
    made = round_columns(weight, grams, scheme)
    grid = np.array(list(product(range(4), repeat=3)), np.float64).T  # [3, 64]
    assert made.zero_points is not None
    least = []
    for at in range(40):
        difference = (grid - made.zero_points[0, at]) * made.scales[0, at] - weight[:, [at]]
        least.append(np.einsum("km,kj,jm->m", difference, grams[at], difference).min())
    found = errors(weight, made, grams)
    assert (found >= np.array(least) * (1 - 1e-5)).all()
    assert (found <= np.array(least) * 1.001).mean() > 0.8
    plain = errors(weight, assemble(*clip_search(weight, scheme), k=3, scheme=scheme), grams)
    assert (plain <= np.array(least) * 1.001).mean() < 0.6


def test_a_channel_that_never_fired_is_rounded_all_the_same():
    weight, grams = case(9, 4)
    grams[1], grams[2, 3], grams[2, :, 3] = 0.0, 0.0, 0.0
    made = round_columns(weight, grams, SCHEMES[0])
    assert np.isfinite(made.scales).all()
    assert np.abs(dequantize(made)[:, 1] - weight[:, 1]).max() <= made.scales[0, 1]
