"""importance and gptq: less error at the output of the matmul than rounding that knows nothing of its inputs."""

import numpy as np
import pytest
from onnxq_plugins import gptq
from onnxq_plugins.gptq import Gptq, inverse_factor, round_in_order
from onnxq_plugins.mse import Importance, LeastSquares

from onnxq.affine import dequantize
from onnxq.plugin.contracts import WeightEvidence
from onnxq.scheme import Scheme

SCHEMES = [Scheme(bits=bits, symmetric=symmetric, block_size=32) for bits in (2, 3, 4) for symmetric in (False, True)]


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    """A weight [150, 24], and correlated inputs [400, 150] of very unequal size."""
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((400, 150)) @ rng.standard_normal((150, 150)) * np.exp(rng.standard_normal(150))
    return rng.standard_normal((150, 24)).astype(np.float32), inputs


def evidence_of(inputs: np.ndarray) -> WeightEvidence:
    gram = inputs.T @ inputs / len(inputs)
    return WeightEvidence(second_moment=np.diag(gram).copy(), gram=gram)


def output_error(weight: np.ndarray, inputs: np.ndarray, quantized: np.ndarray) -> float:
    return float(np.square(inputs @ (quantized - weight)).sum())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_each_method_beats_the_one_that_knows_less(case: tuple[np.ndarray, np.ndarray], scheme: Scheme) -> None:
    weight, inputs = case
    seen = evidence_of(inputs)
    errors = [
        output_error(weight, inputs, dequantize(method.quantize(weight, scheme, seen)))
        for method in (Gptq(), Importance(), LeastSquares())
    ]
    assert errors[0] < 0.7 * errors[1]
    assert errors[1] < errors[2]


def test_gptq_follows_the_slow_loop(case: tuple[np.ndarray, np.ndarray]) -> None:
    """The textbook form: after each row, move every free row by the exact minimiser of what is left."""
    weight, inputs = case
    weight, inputs = weight[:40], inputs[:, :40]
    scheme = Scheme(bits=4, symmetric=False, block_size=32)
    seen = evidence_of(inputs)
    start = Importance().quantize(weight, scheme, seen)
    assert seen.gram is not None
    assert start.zero_points is not None
    rows = np.arange(40) // 32
    scale, zero = start.scales[rows], start.zero_points[rows].astype(np.float32)
    got = round_in_order(weight, seen.gram, scale, zero, scheme)
    hessian = seen.gram + 0.01 * np.diag(seen.gram).mean() * np.eye(40)
    left, codes, free = weight.astype(np.float64), np.empty((40, 24)), np.ones(40, bool)
    for row in np.argsort(-np.diag(seen.gram), kind="stable"):
        codes[row] = np.clip(np.rint(left[row] / scale[row]) + zero[row], 0, 15)
        free[row] = False
        moved = left[row] - (codes[row] - zero[row]) * scale[row]
        left[free] += np.outer(np.linalg.solve(hessian[np.ix_(free, free)], hessian[free, row]), moved)
    assert (codes == got).mean() > 0.995  # float32 updates may tip a tie
    assert (np.roll(codes, 1, axis=0) == got).mean() < 0.5  # the twin that must fail


@pytest.mark.parametrize("method", [Gptq(), Importance()], ids=lambda method: method.name)
def test_without_evidence_it_is_mse(case: tuple[np.ndarray, np.ndarray], method: Gptq | Importance) -> None:
    scheme = Scheme(bits=4, symmetric=True, block_size=32)
    expected = LeastSquares().quantize(case[0], scheme, None)
    got = method.quantize(case[0], scheme, None)
    assert (got.codes == expected.codes).all()
    assert (got.scales == expected.scales).all()


def test_gptq_survives_channels_that_never_fire_and_singular_matrices(case: tuple[np.ndarray, np.ndarray]) -> None:
    weight, inputs = case
    few = inputs[:20].copy()  # rank 20 of 150
    few[:, ::3] = 0.0
    quantized = Gptq().quantize(weight, Scheme(bits=4, symmetric=False, block_size=32), evidence_of(few))
    assert np.isfinite(dequantize(quantized)).all()
    plain = LeastSquares().quantize(weight, quantized.scheme, None)
    assert output_error(weight, few, dequantize(quantized)) < output_error(weight, few, dequantize(plain))


@pytest.mark.parametrize("k", [1, 5, 64, 65, 150])
def test_the_factor_is_that_of_the_inverse(case: tuple[np.ndarray, np.ndarray], k: int) -> None:
    gram = case[1][:, :k].T @ case[1][:, :k]
    damped = gram + 0.01 * np.diag(gram).mean() * np.eye(k)
    expected = np.linalg.cholesky(np.linalg.inv(damped)).T
    got = inverse_factor(gram)
    assert (np.tril(got, -1) == 0).all()
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(got, np.linalg.inv(np.linalg.cholesky(damped)), rtol=1e-4, atol=1e-5) or k == 1


def test_at_8_bits_the_rounding_of_the_inputs_is_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 inputs made of 16: what is let loose between them costs as soon as noise comes on top."""
    rng = np.random.default_rng(4)
    inputs = rng.standard_normal((500, 16)) @ rng.standard_normal((16, 64))
    weight = rng.standard_normal((64, 16)).astype(np.float32)
    scheme = Scheme(bits=8, symmetric=True, granularity="per_axis", scale_type="FLOAT")
    seen = evidence_of(inputs)
    assert seen.gram is not None
    noisy = gptq.damped(seen.gram)

    def noisy_error() -> float:
        difference = dequantize(Gptq().quantize(weight, scheme, seen)) - weight
        return float(np.vdot(difference, noisy @ difference))

    aware = noisy_error()
    monkeypatch.setattr(gptq, "damped", lambda gram: gram)
    assert aware < noisy_error()
