"""Damage against numpy's own words for the same measures, over one batch and over many."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.damage import Damage, DamageMeter

RNG = np.random.default_rng(0)


def measured(x: np.ndarray, y: np.ndarray, *, class_like: bool = False, pieces: int = 1) -> Damage:
    meter = DamageMeter(class_like=class_like)
    for a, b in zip(np.array_split(x, pieces), np.array_split(y, pieces), strict=True):
        meter.update(a, b)
    return meter.result()


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("pieces", [1, 3, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_measures_of_the_difference(pieces, dtype):
    x = RNG.standard_normal((20, 5)).astype(dtype)
    y = (x + 0.1 * RNG.standard_normal((20, 5))).astype(dtype)
    damage = measured(x, y, pieces=pieces)
    x, y = x.astype(np.float64), y.astype(np.float64)
    mse = np.mean((x - y) ** 2)
    assert damage.mse == pytest.approx(mse)
    assert damage.sqnr_db == pytest.approx(10 * math.log10(np.mean(x**2) / mse))
    assert damage.psnr_db == pytest.approx(20 * math.log10(np.abs(x).max()) - 10 * math.log10(mse))
    assert damage.cosine == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    assert damage.max_abs == pytest.approx(np.abs(x - y).max())
    assert damage.top1 is damage.kl is None
    assert damage.finite


@pytest.mark.parametrize("pieces", [1, 4])
def test_logits(pieces):
    x = RNG.standard_normal((3, 4, 10)) * 3
    y = x + RNG.standard_normal(x.shape)
    damage = measured(x, y, class_like=True, pieces=min(pieces, 3))
    p, q = softmax(x), softmax(y)
    assert damage.top1 == pytest.approx((x.argmax(-1) == y.argmax(-1)).mean())
    assert 0 < damage.top1 < 1
    assert damage.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean())


@pytest.mark.parametrize("pieces", [1, 4])
def test_probabilities_are_compared_as_they_are(pieces):
    x, y = softmax(RNG.standard_normal((12, 6)) * 3), softmax(RNG.standard_normal((12, 6)) * 3)
    damage = measured(x, y, class_like=True, pieces=pieces)
    assert damage.kl == pytest.approx((x * np.log(x / y)).sum(-1).mean())


def test_probabilities_that_quantizing_pushed_off_one_are_still_probabilities():
    """Whether rows are probabilities is the float model's to say; its quantized twin may sum to 1.02."""
    x = softmax(RNG.standard_normal((12, 6)) * 3)
    y = x * 1.02
    damage = measured(x, y, class_like=True)
    assert damage.kl == pytest.approx(0, abs=1e-9)  # the same distribution once it is normalised


@given(st.integers(0, 1000), st.integers(1, 6), st.booleans())
def test_how_the_data_is_cut_into_batches_does_not_matter(seed, pieces, mixed):
    """Also where some rows are distributions and others are not."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 4))
    if mixed:
        x[::2] = softmax(x[::2])
    y = x + 0.1 * rng.random((6, 4))
    whole, cut = measured(x, y, class_like=True), measured(x, y, class_like=True, pieces=pieces)
    for field in ("sqnr_db", "mse", "psnr_db", "cosine", "max_abs", "top1", "kl"):
        assert getattr(cut, field) == pytest.approx(getattr(whole, field), rel=1e-9), field


def test_equal_tensors():
    x = RNG.standard_normal((4, 3))
    damage = measured(x, x, class_like=True)
    assert (damage.sqnr_db, damage.psnr_db) == (math.inf, math.inf)
    assert (damage.mse, damage.max_abs, damage.top1) == (0, 0, 1)
    assert damage.cosine == pytest.approx(1)
    assert damage.kl == pytest.approx(0, abs=1e-12)


def test_zeros_against_something_and_against_zeros():
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert measured(zeros, ones).sqnr_db == -math.inf
    assert measured(zeros, ones).cosine == 0
    assert measured(zeros, zeros).sqnr_db == math.inf
    assert measured(zeros, zeros).cosine == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_stops_being_finite_is_told(bad):
    x = np.ones((2, 3))
    y = x.copy()
    y[1, 2] = bad
    damage = measured(x, y)
    assert not damage.finite
    assert damage.mse == 0  # over the five values that can be compared


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_was_not_finite_before_is_no_damage(bad):
    x = np.ones((2, 3))
    x[0, 0] = bad
    damage = measured(x, np.where(np.isfinite(x), 1.5, bad))
    assert damage.finite
    assert damage.mse == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_scalars_and_empty_tensors(shape):
    damage = measured(np.ones(shape)[None], np.ones(shape)[None], class_like=True)
    assert damage.finite
    assert damage.mse == 0


def test_integers_and_booleans_are_numbers_too():
    assert measured(np.array([[1, 2]]), np.array([[1, 4]])).mse == 2
    assert measured(np.array([[True, False]]), np.array([[True, True]])).mse == 0.5
