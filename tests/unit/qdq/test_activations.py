"""Scale and zero point of an activation: zero exact, the range covered, for every type and symmetry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.qdq.activations import ActivationFormat

FORMATS = [
    ActivationFormat(bits, signed=signed, symmetric=symmetric)
    for bits in (8, 16)
    for signed in (False, True)
    for symmetric in (False, True)
]
NUMBERS = st.floats(-1e4, 1e4, allow_subnormal=False)


def decoded(codes, form, scale, zero_point):
    return (np.clip(codes, form.qmin, form.qmax) - zero_point) * np.float64(scale)


@pytest.mark.parametrize(
    ("form", "dtype", "qmin", "qmax"),
    [
        (ActivationFormat(8), "UINT8", 0, 255),
        (ActivationFormat(8, signed=True), "INT8", -128, 127),
        (ActivationFormat(16), "UINT16", 0, 65535),
        (ActivationFormat(16, signed=True), "INT16", -32768, 32767),
    ],
    ids=str,
)
def test_types(form, dtype, qmin, qmax):
    assert (form.dtype.name, form.qmin, form.qmax) == (dtype, qmin, qmax)


@pytest.mark.parametrize("form", FORMATS, ids=repr)
@given(low=NUMBERS, high=NUMBERS, x=st.floats(0, 1))
def test_numbers_in_range_lose_at_most_half_a_step(form, low, high, x):
    low, high = min(low, high), max(low, high)
    scale, zero_point = form.quantize_range(low, high)
    assert form.qmin <= zero_point <= form.qmax
    assert scale == np.float32(scale) > 0
    low, high = min(low, 0.0), max(high, 0.0)
    value = low + x * (high - low)
    code = np.rint(value / scale) + zero_point
    error = abs(decoded(code, form, scale, zero_point) - value)
    # Rounding the zero point may cut half a step off one end of the range, and float32 rounds the scale.
    assert error <= scale * 1.001 + 2**-22 * abs(value)
    assert decoded(zero_point, form, scale, zero_point) == 0.0


@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_a_scale_one_percent_too_small_would_be_noticed(form):
    scale, zero_point = form.quantize_range(-3.0, 5.0)
    code = np.rint(5.0 / (scale * 0.97)) + zero_point
    assert abs(decoded(code, form, scale * 0.97, zero_point) - 5.0) > scale * 1.001


@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_a_tensor_that_is_never_negative_has_zero_at_the_lowest_code(form):
    scale, zero_point = form.quantize_range(0.5, 6.0)
    assert zero_point == form.qmin
    assert scale == pytest.approx(6.0 / (form.qmax - form.qmin))


@pytest.mark.parametrize("form", [form for form in FORMATS if form.symmetric], ids=repr)
def test_symmetric_means_the_middle_code(form):
    assert form.quantize_range(-1.0, 3.0)[1] == (0 if form.signed else 1 << (form.bits - 1))


@pytest.mark.parametrize("form", FORMATS, ids=repr)
@pytest.mark.parametrize("bounds", [(0.0, 0.0), (-1e-42, 1e-42)], ids=str)
def test_a_tensor_of_zeros_has_scale_one(form, bounds):
    assert form.quantize_range(*bounds)[0] == 1.0
