"""Evidence: what is saved comes back to the last bit; what does not belong together is refused."""

from types import MappingProxyType

import numpy as np
import pytest
from onnxq_plugins.minmax import MinMax

from onnxq.errors import DataError, PlanError, PluginError, RecipeError
from onnxq.evidence import Evidence, Observation, Wish
from onnxq.plugin.parameters import new_calibrator
from onnxq.plugin.registry import Plugin
from onnxq.scheme import Scheme

SCHEME = Scheme(8, False, "per_tensor")
WISHES = (
    Wish("a", "minmax"),
    Wish("b/c", "percentile:90", axis=1),
    Wish("d", "mse"),
    Wish("e", "entropy", axis=0),
    Wish("f", "moving-average:momentum=0.5"),
)


def observation(registry, wish: Wish, rows: np.ndarray) -> Observation:
    plugin = registry.calibrator(wish.calibrator.partition(":")[0])
    calibrator = new_calibrator(plugin, wish.calibrator)
    calibrator.update(rows)
    return Observation(wish, plugin, calibrator, len(rows), rows.size, 0, float(rows.min()), float(rows.max()))


def collected(registry, seed: int, *, fingerprint: str = "abc", wishes=WISHES) -> Evidence:
    rng = np.random.default_rng(seed)
    seen = {}
    for wish in wishes:
        rows = rng.standard_normal((1 if wish.axis is None else 3, 200)).astype(np.float32)
        seen[wish.tensor] = observation(registry, wish, rows)
    return Evidence(fingerprint, "here", 4, MappingProxyType(seen), MappingProxyType({"g": "was empty"}))


def all_ranges(evidence: Evidence) -> list[bytes]:
    return [bound.tobytes() for name in evidence.tensors for bound in evidence.range(name, SCHEME)]


def one_calibrator(answer) -> Evidence:
    """Evidence whose only calibrator returns `answer` as its range."""

    class Answering(MinMax):
        name = "answering"

        def range(self, scheme):
            return answer() if callable(answer) else answer

    plugin = Plugin("answering", "calibrator", Answering, "somebody", "1.2")
    seen = Observation(Wish("t", "answering"), plugin, Answering(), 1, 1, 0, 0.0, 1.0)
    return Evidence("abc", "here", 1, {"t": seen}, {})


class TestRange:
    def test_is_a_number_per_tensor_and_a_vector_per_channel(self, registry):
        evidence = collected(registry, 0)
        assert [evidence.range(name, SCHEME)[0].shape for name in evidence.tensors] == [(), (3,), (), (3,), ()]
        assert evidence.range("a", SCHEME)[0].dtype == np.float32

    def test_of_an_unobserved_tensor_gives_the_reason(self, registry):
        evidence = collected(registry, 0)
        with pytest.raises(PlanError, match="tensor 'g' has no range: was empty; keep its readers float"):
            evidence.range("g", SCHEME)
        with pytest.raises(PlanError, match="tensor 'z' has no range: nobody asked for it"):
            evidence.range("z", SCHEME)

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            ((np.array([np.nan]), np.array([1.0])), r"range \(nan, 1.0\), expected finite low <= high"),
            ((np.array([-np.inf]), np.array([1.0])), r"range \(-inf, 1.0\)"),
            ((np.array([2.0]), np.array([1.0])), r"range \(2.0, 1.0\)"),
            ((np.array([1.0, 2.0]), np.array([1.0, 3.0])), r"shapes \[2\], \[2\], expected \[1\]"),
            ((0.0, 1.0), r"shapes \[\], \[\], expected \[1\]"),
            (None, "raised TypeError"),
            (("low", "high"), "raised ValueError"),
            ((np.array([1.0]),), "raised ValueError"),
            (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
        ],
    )
    def test_nonsense_from_a_calibrator_names_it_and_the_tensor(self, answer, problem):
        origin = r"calibrator plugin 'answering' \(somebody 1.2\) at tensor 't': "
        message = rf"{origin}(returned the |returned a range of )?{problem}"
        with pytest.raises(PluginError, match=message):
            one_calibrator(answer).range("t", SCHEME)

    def test_a_sound_answer_passes(self):
        """Its twin: the check is not always on."""
        low, high = one_calibrator((np.array([0.5]), np.array([0.5]))).range("t", SCHEME)
        assert (float(low), float(high)) == (0.5, 0.5)


class TestFiles:
    def test_round_trip_keeps_every_bit(self, registry, tmp_path):
        evidence = collected(registry, 0)
        evidence.save(tmp_path / "e.npz")
        loaded = Evidence.load(tmp_path / "e.npz", registry)
        assert all_ranges(loaded) == all_ranges(evidence)
        assert [loaded.observations[name].wish for name in loaded.tensors] == list(WISHES)
        assert loaded.unobserved == evidence.unobserved
        assert (loaded.fingerprint, loaded.data, loaded.batches) == ("abc", "here", 4)
        facts = [(seen.count, seen.excluded, seen.low, seen.high) for seen in loaded.observations.values()]
        assert facts == [(seen.count, seen.excluded, seen.low, seen.high) for seen in evidence.observations.values()]

    def test_the_same_evidence_is_the_same_file(self, registry, tmp_path):
        for name in ("one.npz", "two.npz"):
            collected(registry, 0).save(tmp_path / name)
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()

    def test_nothing_in_it_is_pickled(self, registry, tmp_path):
        collected(registry, 0).save(tmp_path / "e.npz")
        with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
            assert all(archive[name].dtype.kind != "O" for name in archive.files)

    @pytest.mark.parametrize("damage", [b"", b"nonsense", None])
    def test_a_file_of_something_else(self, registry, tmp_path, damage):
        path = tmp_path / "e.npz"
        np.savez(path, a=np.zeros(3)) if damage is None else path.write_bytes(damage)
        with pytest.raises(
            DataError, match=r"not a file of evidence, or damaged .*; make it again with onnxq calibrate"
        ):
            Evidence.load(path, registry)

    def test_a_truncated_file(self, registry, tmp_path):
        path = tmp_path / "e.npz"
        collected(registry, 0).save(path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DataError, match="damaged"):
            Evidence.load(path, registry)

    def test_a_pickled_array(self, registry, tmp_path):
        np.savez(tmp_path / "e.npz", evidence=np.array([{}], dtype=object))
        with pytest.raises(DataError, match="damaged"):
            Evidence.load(tmp_path / "e.npz", registry)

    def test_a_missing_file(self, registry, tmp_path):
        with pytest.raises(DataError, match="no such file; make it with onnxq calibrate"):
            Evidence.load(tmp_path / "none.npz", registry)

    def test_a_calibrator_that_is_not_installed(self, registry, tmp_path):
        one_calibrator(None).save(tmp_path / "e.npz")
        with pytest.raises(RecipeError, match="calibrator 'answering' is not installed"):
            Evidence.load(tmp_path / "e.npz", registry)


class TestMerge:
    def test_equals_evidence_over_both(self, registry):
        rng = np.random.default_rng(0)
        parts = rng.standard_normal((3, 1, 100)).astype(np.float32)
        one, two, three = (
            Evidence("abc", "here", 1, {"d": observation(registry, Wish("d", "mse"), part)}, {}) for part in parts
        )
        whole = observation(registry, Wish("d", "mse"), np.concatenate(parts, axis=1))
        merged, other_tree = one.merge(two).merge(three), three.merge(two.merge(one))
        assert all_ranges(merged) == all_ranges(other_tree) == [bound.tobytes() for bound in whole.range(SCHEME)]
        seen = merged.observations["d"]
        assert (merged.batches, seen.count, seen.low, seen.high) == (3, 300, whole.low, whole.high)

    def test_takes_in_tensors_that_only_one_has(self, registry):
        one = collected(registry, 0, wishes=WISHES[:2])
        two = collected(registry, 1, wishes=WISHES[2:])
        assert set(one.merge(two).tensors) == {wish.tensor for wish in WISHES}

    def test_what_one_has_seen_is_observed(self, registry):
        one = Evidence("abc", "here", 1, {}, {"a": "was empty in every batch"})
        assert one.merge(collected(registry, 0)).unobserved == {"g": "was empty"}

    def test_of_two_models_is_refused(self, registry):
        with pytest.raises(DataError, match="two different models"):
            collected(registry, 0).merge(collected(registry, 0, fingerprint="def"))

    def test_of_two_calibrators_is_refused(self, registry):
        one = collected(registry, 0, wishes=(Wish("a", "minmax"),))
        two = collected(registry, 0, wishes=(Wish("a", "mse"),))
        with pytest.raises(PlanError, match="tensor 'a': evidence of mse over 1 channels cannot be merged"):
            one.merge(two)


def test_evidence_of_another_model_is_refused(registry, tmp_path):
    evidence = collected(registry, 0)
    evidence.check_model("abc", tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"collected on another model than .*m.onnx"):
        evidence.check_model("def", tmp_path / "m.onnx")
