"""The numbers that scores are made of, on values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.models.metrics import edit_distance, kl_divergence, log_softmax, sqnr_db, top1_agreement
from benchmarks.models.scorers.ocr import decode


def test_log_softmax_of_large_values() -> None:
    np.testing.assert_allclose(np.exp(log_softmax(np.array([1000.0, 1000.0, -1000.0]))), [0.5, 0.5, 0])


def test_kl_divergence() -> None:
    reference, other = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    np.testing.assert_allclose(kl_divergence(reference, other), [expected, 0], atol=1e-12)
    assert kl_divergence(other, reference)[0] != pytest.approx(expected, rel=0.05)  # it has a direction


def test_top1_agreement() -> None:
    reference, other = np.array([[1, 2, 3], [3, 2, 1]]), np.array([[0, 0, 1], [0, 5, 1]])
    np.testing.assert_array_equal(top1_agreement(reference, other), [True, False])


def test_sqnr() -> None:
    reference = np.array([3.0, 4.0])
    assert sqnr_db(reference, np.array([3.5, 4.0])) == pytest.approx(20.0)  # 25 / 0.25 = 100
    assert sqnr_db(reference, reference) == math.inf


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2), ("abc", "ac", 1)],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == edit_distance(second, first) == distance


def test_ctc_keeps_double_letters_only_across_a_blank() -> None:
    best = [1, 1, 0, 1, 2, 2, 0, 0, 3]  # a a - a b b - - c
    assert decode(np.eye(4)[best], ["", "a", "b", "c"]) == "aabc"
