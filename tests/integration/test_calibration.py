"""Calibration on real sessions: what is observed, what is left alone, and that memory and order do not matter."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, model, node, run, value
from onnxq_plugins.minmax import MinMax

from onnxq.calibration import calibrate, float_activations, masked_tensors
from onnxq.data import Data
from onnxq.errors import DataError, PlanError, PluginError, RecipeError, SessionError
from onnxq.evidence import Evidence, Wish
from onnxq.model import Model, load
from onnxq.normalise import normalise
from onnxq.plugin.registry import Plugin, Registry
from onnxq.scheme import Scheme
from onnxq.scratch import scratch_copy
from onnxq.session import Session, SessionOptions

SCHEME = Scheme(8, False, "per_tensor")
OPTIONS = SessionOptions(threads=1)


def saved(proto: onnx.ModelProto, folder: Path) -> Model:
    onnx.save(proto, folder / "model.onnx")
    return normalise(load(folder / "model.onnx"), opset=21)


def batches(*feeds: dict) -> Data:
    return Data("batches", lambda: iter(feeds))


def observed(loaded: Model, wishes: Sequence[Wish], data: Data, registry: Registry, **options) -> Evidence:
    return calibrate(loaded, wishes, data, registry, options=OPTIONS, **options)


def span(evidence: Evidence, tensor: str) -> tuple[float, float]:
    low, high = evidence.range(tensor, SCHEME)
    return float(low), float(high)


def chain(length: int = 4, *, shape=("N", "W")) -> onnx.ModelProto:
    """x -> *2 -> *2 -> ...: t1, t2, ... hold 2x, 4x, ..."""
    names = ["x", *(f"t{index}" for index in range(1, length + 1))]
    nodes = [node("Mul", [a, "two"], [b]) for a, b in itertools.pairwise(names)]
    weights = {"two": np.float32([2])}
    return model(graph(nodes, [value("x", shape)], [value(names[-1], shape)], weights))


def ragged_feeds() -> list[dict]:
    """Widths differ, and one batch is empty."""
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, width)).astype(np.float32)} for width in (3, 0, 17, 1)]


class TestWhatIsObserved:
    def test_inputs_intermediate_values_and_outputs(self, registry, tmp_path):
        feeds = ragged_feeds()
        names = ["x", "t1", "t4"]
        evidence = observed(saved(chain(), tmp_path), [Wish(n, "minmax") for n in names], batches(*feeds), registry)
        everything = np.concatenate([feed["x"].reshape(-1) for feed in feeds])
        for name, factor in zip(names, (1, 2, 16), strict=True):
            assert span(evidence, name) == (everything.min() * factor, everything.max() * factor)
            assert evidence.observations[name].count == everything.size
        assert (evidence.tensors, evidence.batches) == (("x", "t1", "t4"), 4)

    @pytest.mark.parametrize("axis", [1, -1])
    def test_per_channel(self, registry, tmp_path, axis):
        x = np.array([[1, -5, 0], [2, 7, 0]], np.float32)
        wish = Wish("t1", "minmax", axis=axis)
        evidence = observed(saved(chain(1), tmp_path), [wish], batches({"x": x}, {"x": -x}), registry)
        low, high = evidence.range("t1", SCHEME)
        assert low.tolist() == [-4, -14, 0]
        assert high.tolist() == [4, 14, 0]

    def test_ragged_channels_and_missing_axes_are_said(self, registry, tmp_path):
        loaded, data = saved(chain(), tmp_path), batches(*ragged_feeds())
        wishes = [Wish("t1", "minmax", axis=1), Wish("t2", "minmax", axis=2), Wish("t3", "minmax", axis=0)]
        evidence = observed(loaded, wishes, data, registry)
        assert evidence.tensors == ("t3",)
        assert "3 and 0 channels along axis 1" in evidence.unobserved["t1"]
        assert "rank 2, so no axis 2" in evidence.unobserved["t2"]

    def test_nothing_else_is_computed(self, registry, tmp_path):
        """The model's own output cannot be computed from this batch; nobody asked for it."""
        nodes = [node("Relu", ["x"], ["y"]), node("Reshape", ["y", "shape"], ["z"])]
        weights = {"shape": np.array([7, 7], np.int64)}
        proto = model(graph(nodes, [value("x", ["N", 3])], [value("z", [7, 7])], weights))
        loaded, feed = saved(proto, tmp_path), {"x": np.ones((2, 3), np.float32)}
        assert span(observed(loaded, [Wish("y", "minmax")], batches(feed), registry), "y") == (1, 1)
        with pytest.raises(SessionError):  # the twin: asked for, it fails
            observed(loaded, [Wish("z", "minmax")], batches(feed), registry)

    def test_values_inside_branches_cannot_be_fetched(self, registry, tmp_path):
        then = graph([node("Mul", ["x", "x"], ["inner"]), node("Neg", ["inner"], ["a"])], [], [value("a", ["N"])])
        other = graph([node("Neg", ["x"], ["b"])], [], [value("b", ["N"])], name="other")
        main = graph(
            [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
            [value("x", ["N"]), value("c", [], np.bool_)],
            [value("y", ["N"])],
        )
        wishes = [Wish("inner", "minmax"), Wish("y", "minmax"), Wish("nowhere", "minmax")]
        data = batches({"x": np.float32([1, 2]), "c": np.array(True)})
        evidence = observed(saved(model(main), tmp_path), wishes, data, registry)
        assert span(evidence, "y") == (-4, -1)
        assert "inside a subgraph of If, Loop or Scan" in evidence.unobserved["inner"]
        assert "no such value" in evidence.unobserved["nowhere"]

    def test_what_holds_no_usable_floats_is_said(self, registry, tmp_path):
        nodes = [
            node("Cast", ["x"], ["whole"], to=onnx.TensorProto.INT64),
            node("Log", ["x"], ["log"]),
            node("Sqrt", ["x"], ["root"]),
            node("Slice", ["x", "zero", "zero"], ["none"]),
        ]
        outputs = [value("whole", ["N"], np.int64), *(value(name, ["N"]) for name in ("log", "root", "none"))]
        weights = {"zero": np.array([0], np.int64)}
        proto = model(graph(nodes, [value("x", ["N"])], outputs, weights))
        wishes = [Wish(name, "minmax") for name in ("whole", "log", "root", "none", "zero", "x")]
        data = batches({"x": np.float32([4])}, {"x": np.float32([0])}, {"x": np.float32([-1])})
        evidence = observed(saved(proto, tmp_path), wishes, data, registry)
        assert evidence.tensors == ("x",)
        assert evidence.unobserved == {
            "whole": "holds int64, not floats",
            "log": "held infinity in batch 1",
            "root": "held NaN in batch 2",
            "none": "was empty in every batch",
            "zero": "is a constant; its values are known without calibration",
        }

    def test_float16_and_float64_are_seen_as_float32(self, registry, tmp_path):
        for dtype in (np.float16, np.float64):
            proto = model(graph([node("Neg", ["x"], ["y"])], [value("x", ["N"], dtype)], [value("y", ["N"], dtype)]))
            data = batches({"x": np.array([1.5, -2], dtype)})
            assert span(observed(saved(proto, tmp_path), [Wish("y", "mse")], data, registry), "y")[1] == 2

    def test_float_activations_lists_them_in_order(self, tmp_path):
        assert float_activations(saved(chain(2), tmp_path)) == ("x", "t1", "t2")


class TestMemory:
    @pytest.mark.parametrize("max_ram", [None, 0, 700])
    def test_groups_of_any_size_see_the_same(self, registry, tmp_path, max_ram):
        loaded, data = saved(chain(6), tmp_path), batches(*ragged_feeds())
        wishes = [Wish(f"t{index}", "percentile:90") for index in range(1, 7)]
        passes: list[int] = []
        evidence = observed(loaded, wishes, data, registry, max_ram=max_ram, on_batch=passes.append)
        whole = observed(loaded, wishes, data, registry)
        for name in whole.tensors:
            assert span(evidence, name) == span(whole, name)
        expected = {None: 4, 0: 24}.get(max_ram)
        assert expected is None or passes == list(range(1, expected + 1))

    def test_weights_in_files_are_not_written_again(self, tmp_path):
        rng = np.random.default_rng(0)
        weights = {name: rng.standard_normal((64, 64)).astype(np.float32) for name in ("stored", "inline")}
        nodes = [node("MatMul", ["x", "stored"], ["h"]), node("MatMul", ["h", "inline"], ["y"])]
        proto = model(graph(nodes, [value("x", ["N", 64])], [value("y", ["N", 64])], weights))
        onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "weights.bin")
        onnx.save(proto, tmp_path / "model.onnx")
        loaded = load(tmp_path / "model.onnx")
        x = rng.standard_normal((2, 64)).astype(np.float32)
        with scratch_copy(loaded) as scratch:
            places = {
                item.name: {e.key: e.value for e in item.external_data} for item in scratch.proto.graph.initializer
            }
            assert scratch.base / places["stored"]["location"] == (tmp_path / "weights.bin").resolve()
            derived = scratch.base / places["inline"]["location"]
            assert derived.stat().st_size == weights["inline"].nbytes
            session, _ = scratch.session(OPTIONS, ["h", "y"])
            fetched = session.run({"x": x})
        assert not derived.exists()
        np.testing.assert_array_equal(fetched["y"], run(tmp_path / "model.onnx", {"x": x})[0])
        assert isinstance(loaded.ir.graph.initializers["stored"].const_value, ir.ExternalTensor)

    def test_shapes_can_be_asked_for_without_contents(self, tmp_path):
        with scratch_copy(saved(chain(), tmp_path)) as scratch:
            session, shapes = scratch.session(OPTIONS, [], shapes_of=["t2"])
            assert session.outputs == (shapes["t2"],)
            assert session.run({"x": np.zeros((5, 3), np.float32)})[shapes["t2"]].tolist() == [5, 3]


class TestMasks:
    def attention(self) -> onnx.ModelProto:
        """scores + (1 - mask) * -1e4 -> Softmax -> MatMul, the way BERT exports look."""
        nodes = [
            node("MatMul", ["q", "k"], ["scores"]),
            node("Sub", ["one", "mask"], ["hidden"]),
            node("Mul", ["hidden", "least"], ["bias"]),
            node("Add", ["scores", "bias"], ["masked"]),
            node("Softmax", ["masked"], ["weights"]),
            node("MatMul", ["weights", "q"], ["y"]),
        ]
        inputs = [value("q", ["S", 4]), value("k", [4, "S"]), value("mask", ["S"])]
        weights = {"one": np.float32([1]), "least": np.float32([-1e4])}
        return model(graph(nodes, inputs, [value("y", ["S", 4])], weights))

    def feed(self, mask) -> dict:
        rng = np.random.default_rng(0)
        q, k = rng.standard_normal((3, 4)), rng.standard_normal((4, 3))
        return {"q": q.astype(np.float32), "k": k.astype(np.float32), "mask": np.float32(mask)}

    def test_are_kept_out_of_ranges(self, registry, tmp_path):
        loaded = saved(self.attention(), tmp_path)
        wishes = [Wish(name, "minmax") for name in ("scores", "bias", "masked", "weights", "y")]
        feed = self.feed([1, 1, 0])
        evidence = observed(loaded, wishes, batches(feed), registry)
        scores = feed["q"] @ feed["k"]
        assert span(evidence, "masked") == pytest.approx((scores[:, :2].min(), scores[:, :2].max()), abs=1e-5)
        assert span(evidence, "bias") == (0, 0)
        assert evidence.observations["masked"].excluded == 3
        assert evidence.observations["scores"].excluded == 0

    def test_infinite_masks_too(self, registry, tmp_path):
        nodes = [node("Where", ["mask", "x", "least"], ["masked"]), node("Softmax", ["masked"], ["y"])]
        inputs = [value("x", ["N"]), value("mask", ["N"], np.bool_)]
        proto = model(graph(nodes, inputs, [value("y", ["N"])], {"least": np.float32(-np.inf)}))
        data = batches({"x": np.float32([1, 2, 3]), "mask": np.array([True, True, False])})
        evidence = observed(saved(proto, tmp_path), [Wish("masked", "mse")], data, registry)
        assert span(evidence, "masked")[1] == pytest.approx(2, rel=1e-2)

    def test_large_negative_values_elsewhere_stay(self, registry, tmp_path):
        """The twin: without a Softmax behind it, -1e4 is a value like any other."""
        evidence = observed(
            saved(chain(1), tmp_path), [Wish("t1", "minmax")], batches({"x": np.float32([[-1e4, 1]])}), registry
        )
        assert span(evidence, "t1") == (-2e4, 2)

    def test_a_tensor_of_nothing_but_masks_is_said(self, registry, tmp_path):
        data = batches(self.feed([0, 0, 0]))
        evidence = observed(saved(self.attention(), tmp_path), [Wish("bias", "minmax")], data, registry)
        assert evidence.unobserved == {"bias": "every value was an attention mask"}

    def test_the_walk_stops_at_products(self, tmp_path):
        loaded = saved(self.attention(), tmp_path)
        names = masked_tensors(loaded.ir.graph)
        assert {"masked", "bias", "hidden", "scores"} <= names
        assert not {"q", "k", "weights", "y"} & names


class TestState:
    def accumulator(self) -> onnx.ModelProto:
        nodes = [node("Add", ["x", "h"], ["after"]), node("Mul", ["after", "two"], ["y"])]
        outputs = [value("y", [1, 2]), value("after", [1, 2])]
        return model(graph(nodes, [value("x", [1, 2]), value("h", [1, 2])], outputs, {"two": np.float32([2])}))

    @pytest.mark.parametrize("max_ram", [None, 0])
    def test_goes_from_batch_to_batch_in_every_pass(self, registry, tmp_path, max_ram):
        data = batches(*({"x": np.float32([[1, 1]])} for _ in range(5)))
        wishes = [Wish("after", "minmax"), Wish("y", "minmax"), Wish("h", "minmax")]
        loaded = saved(self.accumulator(), tmp_path)
        evidence = observed(loaded, wishes, data, registry, state={"after": "h"}, max_ram=max_ram)
        assert [span(evidence, name) for name in ("h", "after", "y")] == [(0, 4), (1, 5), (2, 10)]

    def test_a_cache_grows_from_nothing(self, registry, tmp_path):
        main = graph(
            [node("Concat", ["past", "x"], ["present"], axis=1), node("ReduceSum", ["present"], ["y"], keepdims=0)],
            [value("x", ["B", "S"]), value("past", ["B", "P"])],
            [value("y", []), value("present", ["B", "T"])],
        )
        data = batches(*({"x": np.ones((1, 2), np.float32)} for _ in range(3)))
        loaded = saved(model(main), tmp_path)
        evidence = observed(loaded, [Wish("y", "minmax")], data, registry, state={"present": "past"})
        assert span(evidence, "y") == (2, 6)

    def test_an_lstm_keeps_its_two_states(self, registry, tmp_path):
        rng = np.random.default_rng(0)
        weights = {
            "w": rng.standard_normal((1, 16, 3)).astype(np.float32),
            "r": rng.standard_normal((1, 16, 4)).astype(np.float32),
        }
        lstm = node("LSTM", ["x", "w", "r", "", "", "h", "c"], ["all", "hn", "cn"], hidden_size=4)
        state = [1, "B", 4]
        main = graph(
            [lstm],
            [value("x", ["S", "B", 3]), value("h", state), value("c", state)],
            [value("all", ["S", 1, "B", 4]), value("hn", state), value("cn", state)],
            weights,
        )
        xs = [rng.standard_normal((2, 1, 3)).astype(np.float32) for _ in range(4)]
        loaded = saved(model(main), tmp_path)
        pairs = {"hn": "h", "cn": "c"}
        evidence = observed(loaded, [Wish("cn", "minmax")], batches(*({"x": x} for x in xs)), registry, state=pairs)
        h = c = np.zeros((1, 1, 4), np.float32)
        seen = []
        for x in xs:
            _, h, c = run(tmp_path / "model.onnx", {"x": x, "h": h, "c": c})
            seen.append(c)
        assert span(evidence, "cn") == pytest.approx((np.min(seen), np.max(seen)), rel=1e-6)

    def test_without_pairs_a_missing_state_is_an_error(self, registry, tmp_path):
        with pytest.raises(SessionError):
            observed(
                saved(self.accumulator(), tmp_path), [Wish("y", "minmax")], batches({"x": np.ones((1, 2))}), registry
            )


class TestMistakes:
    def test_two_calibrators_for_one_tensor(self, registry, tmp_path):
        wishes = [Wish("t1", "minmax"), Wish("t1", "minmax"), Wish("t1", "mse")]
        with pytest.raises(PlanError, match=r"'t1' is wished for twice, as minmax \(axis None\) and as mse"):
            observed(saved(chain(), tmp_path), wishes, batches(*ragged_feeds()), registry)

    def test_an_unknown_calibrator_is_found_before_any_batch(self, registry, tmp_path):
        def fails():
            raise AssertionError("data was read")

        with pytest.raises(RecipeError, match="calibrator 'minmix' is not installed; did you mean 'minmax'"):
            observed(saved(chain(), tmp_path), [Wish("t1", "minmix")], Data("never", fails), registry)

    def test_passes_that_differ(self, registry, tmp_path):
        lengths = iter([4, 4, 3])  # shapes, first group, second group
        data = Data("unsteady", lambda: iter(ragged_feeds()[: next(lengths)]))
        wishes = [Wish("t1", "minmax"), Wish("t2", "minmax")]
        with pytest.raises(DataError, match="unsteady: gave 4 batches at first and 3 in a later pass"):
            observed(saved(chain(), tmp_path), wishes, data, registry, max_ram=0)

    def test_a_calibrator_that_raises_names_tensor_and_batch(self, tmp_path):
        class Picky(MinMax):
            name = "picky"

            def update(self, rows):
                if rows.shape[1] == 34:
                    raise KeyError("34")

        registry = Registry({"picky": Plugin("picky", "calibrator", Picky, "somebody", "1.0")}, {}, {})
        with pytest.raises(PluginError, match=r"'picky' \(somebody 1.0\) at tensor 't1', batch 2: raised KeyError"):
            observed(saved(chain(), tmp_path), [Wish("t1", "picky")], batches(*ragged_feeds()), registry)

    def test_a_calibrator_that_writes_into_its_input_is_caught(self, tmp_path):
        class Writing(MinMax):
            name = "writing"

            def update(self, rows):
                rows *= 2

        registry = Registry({"writing": Plugin("writing", "calibrator", Writing, "somebody", "1.0")}, {}, {})
        with pytest.raises(PluginError, match=r"raised ValueError: .*read-only"):
            observed(
                saved(chain(), tmp_path), [Wish("t1", "writing")], batches({"x": np.ones((1, 1), np.float32)}), registry
            )


def test_the_session_is_loaded_from_where_the_weights_are(tmp_path):
    """A model reached through a link: onnxruntime compares real folders."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    weights = {"w": np.ones((64, 64), np.float32)}
    proto = model(graph([node("MatMul", ["x", "w"], ["y"])], [value("x", ["N", 64])], [value("y", ["N", 64])], weights))
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "weights.bin")
    onnx.save(proto, tmp_path / "real" / "model.onnx")
    with scratch_copy(load(tmp_path / "link" / "model.onnx")) as scratch:
        session, _ = scratch.session(OPTIONS, ["y"])
        assert isinstance(session, Session)
        assert session.run({"x": np.ones((1, 64), np.float32)})["y"][0, 0] == 64
