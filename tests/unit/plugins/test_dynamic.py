"""The dynamic format: what onnxruntime makes of it, and how far it is from the float product."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from graphs import graph, model, node, op_types, relative_error, run, run_reference, value
from stages import plan, quantize

from onnxq.errors import RecipeError

K, N = 96, 40
RNG = np.random.default_rng(0)


def fork(dtype=np.float32) -> onnx.ModelProto:
    """Two products of one activation, and one of another behind an Add."""
    draw = lambda *shape: (RNG.standard_normal(shape) / 8).astype(dtype)  # noqa: E731
    nodes = [
        node("MatMul", ["X", "A"], ["a"], name="left"),
        node("MatMul", ["X", "B"], ["b"], name="right"),
        node("Add", ["a", "b"], ["c"], name="add"),
        node("MatMul", ["c", "C"], ["Y"], name="down"),
    ]
    weights = {"A": draw(K, K), "B": draw(K, K), "C": draw(K, N)}
    return model(graph(nodes, [value("X", ["M", K], dtype)], [value("Y", ["M", N], dtype)], weights), opset=17)


def by_hand(x: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """x quantized to uint8 over its range, zero included, as DynamicQuantizeLinear-11 says; codes times codes."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / step), 0, 255)
    codes = np.clip(np.rint(x / step) + zero, 0, 255)
    return ((codes - zero) @ weight.astype(np.float64)) * (float(step) * scale)


def test_kernels_follow_who_else_reads_the_activation(registry):
    kernels = {made.site.node: made.kernel for made in plan(fork(), registry, format="dynamic").decisions}
    assert kernels == {
        "left": "MatMulIntegerToFloat",
        "right": "MatMulIntegerToFloat",
        "down": "DynamicQuantizeMatMul",
    }
    alone = plan(fork(), registry, format="dynamic", skip=("left",))
    assert {made.kernel for made in alone.decisions} == {"DynamicQuantizeMatMul"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_it_is_within_the_steps_of_float(registry, dtype, symmetric):
    proto = fork(dtype)
    made = quantize(proto, registry, format="dynamic", symmetric=symmetric).model.ir
    x = RNG.standard_normal((7, K)).astype(dtype)
    (expected,), (y,) = run(proto, {"X": x}), run(made, {"X": x})
    assert y.dtype == dtype
    # two layers of 8 bits, activations up to 4 sigma: steps of 8 / 255 sigma, error 1 / sqrt(12) of that, twice
    assert relative_error(y, expected) < 0.03
    (plain,) = run_reference(made, {"X": x})
    # in float16 some activations of the second layer fall on the other side of a rounding: one step of theirs
    assert relative_error(y, plain) < (1e-5 if dtype == np.float32 else 0.01)
    assert relative_error(y * 1.04, expected) > 0.03


def test_codes_and_scales_are_those_of_the_quantizer(registry):
    proto = model(
        graph(
            [node("MatMul", ["X", "W"], ["Y"], name="fc")],
            [value("X", ["M", K])],
            [value("Y", ["M", N])],
            {"W": RNG.standard_normal((K, N)).astype(np.float32)},
        )
    )
    made = quantize(proto, registry, format="dynamic", reduce_range=False).model.ir
    stored = {name: v.const_value.numpy() for name, v in made.graph.initializers.items()}
    assert stored["W.codes"].dtype == np.int8
    assert stored["W.scales"].shape == (N,)
    x = RNG.standard_normal((5, K)).astype(np.float32)
    (y,) = run_reference(made, {"X": x})
    assert relative_error(y, by_hand(x, stored["W.codes"], stored["W.scales"])) < 1e-6
    assert relative_error(y, by_hand(x, stored["W.codes"], np.roll(stored["W.scales"], 1))) > 1e-2


def test_ranges_are_reduced_where_products_would_saturate(registry):
    portable = quantize(fork(), registry, format="dynamic", target="portable").model.ir
    full = quantize(fork(), registry, format="dynamic", reduce_range=False).model.ir
    largest = [
        max(
            int(abs(v.const_value.numpy().astype(np.int16)).max())
            for n, v in m.graph.initializers.items()
            if "codes" in n
        )
        for m in (portable, full)
    ]
    assert largest[0] <= 64 < largest[1]


def test_what_is_no_product_is_packed_or_stays(registry):
    draw = lambda *shape: RNG.standard_normal(shape).astype(np.float32)  # noqa: E731
    nodes = [
        node("Gather", ["T", "ids"], ["E"], name="embed"),
        node("MatMul", ["E", "W"], ["Y"], name="fc"),
        node("Conv", ["I", "F"], ["C"], name="conv"),
    ]
    weights = {"T": draw(50, 64), "W": draw(64, 64), "F": draw(16, 16, 3, 3)}
    inputs = [value("ids", ["M"], np.int64), value("I", [1, 16, 8, 8])]
    made = plan(model(graph(nodes, inputs, [value("Y", ["M", 64]), value("C", [1, 16, 6, 6])], weights)), registry,
                format="dynamic")  # fmt: skip
    assert {item.site.node: item.format for item in made.decisions} == {"embed": "packed", "fc": "dynamic"}
    assert [(skip.node, "--format qdq" in skip.reason) for skip in made.skips] == [("conv", True)]


def test_cuda_is_refused(registry):
    with pytest.raises(RecipeError, match="--format dynamic with --target cuda"):
        plan(fork(), registry, format="dynamic", target="cuda")


def test_bfloat16_goes_through_float32(registry):
    made = quantize(fork(ml_dtypes.bfloat16), registry, format="dynamic").model.ir
    assert op_types(made).count("MatMulInteger") == 3
    assert {v.dtype.name for v in made.graph.outputs} == {"BFLOAT16"}


def test_integer_wishes_that_it_heeds_are_not_called_idle(registry):
    assert plan(fork(), registry, format="dynamic", reduce_range=True, per_channel=False).warnings == ()
    (warning,) = plan(fork(), registry, format="dynamic", calibrator="minmax").warnings
    assert "calibrator has no effect" in warning
