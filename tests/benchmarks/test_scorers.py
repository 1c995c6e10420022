"""Scorers and feeds on sessions and data made here, whose scores are known beforehand."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.models import data, file_bytes, photos, speech
from benchmarks.models.candidate import Candidate
from benchmarks.models.file_bytes import MagikaConfig, calibration_files, evaluation_files, features
from benchmarks.models.folder import ModelFolder
from benchmarks.models.generate import greedy
from benchmarks.models.scorers import minilm, silero, smollm2
from benchmarks.models.text_lines import LineArtist, classifier_input, recognizer_input
from benchmarks.models.texts import words
from benchmarks.models.tokens import Batch, padded_feed, windows

VOCABULARY = 11


class NextNumber:
    """A decoder that expects every token to be the one before plus one, with probability 1/2."""

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input_ids", shape=["B", "S"])]

    def run(self, _: Sequence[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        following = (feed["input_ids"] + 1) % VOCABULARY
        rest = math.log(0.5 / (VOCABULARY - 1))
        return [np.where(np.eye(VOCABULARY, dtype=bool)[following], math.log(0.5), rest).astype(np.float32)]


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    return Candidate(tmp_path / "a.onnx", tmp_path / "b.onnx", ModelFolder(tmp_path))


def counting_text(monkeypatch: pytest.MonkeyPatch, candidate: Candidate, ids: np.ndarray[Any, Any]) -> None:
    """Make both texts these token ids and both models the one above."""
    monkeypatch.setattr(smollm2, "grimm_tales", lambda folder: "x")
    monkeypatch.setattr(smollm2, "python_manual", lambda: "x")
    monkeypatch.setattr(smollm2, "smollm2_ids", lambda folder, texts: [ids for _ in texts])
    monkeypatch.setattr(Candidate, "session", lambda self: NextNumber())
    monkeypatch.setattr(Candidate, "reference_session", lambda self: NextNumber())


def test_perplexity_of_a_text_that_the_model_knows(monkeypatch: pytest.MonkeyPatch, candidate: Candidate) -> None:
    ids = np.concatenate([np.arange(2, 2 + 255) % VOCABULARY] * 3)  # each window starts at 2, after token 1
    counting_text(monkeypatch, candidate, ids)
    score = smollm2.perplexity(candidate)
    assert score.tokens == 3 * 255
    assert score.tales == pytest.approx(2.0, rel=1e-6)


def test_perplexity_of_a_text_that_surprises(monkeypatch: pytest.MonkeyPatch, candidate: Candidate) -> None:
    counting_text(monkeypatch, candidate, np.zeros(255, np.int64))
    assert smollm2.perplexity(candidate).tales == pytest.approx(2.0 * (VOCABULARY - 1), rel=1e-6)


def test_divergence_of_a_model_from_itself(monkeypatch: pytest.MonkeyPatch, candidate: Candidate) -> None:
    counting_text(monkeypatch, candidate, np.arange(255 * 20) % VOCABULARY)
    score = smollm2.divergence(candidate)
    assert (score.kl, score.top1_agreement, score.tokens) == (0.0, 1.0, 12 * 255)


def test_windows_are_whole_and_disjoint() -> None:
    pieces = list(windows(np.arange(8192)))
    assert len(pieces) * 255 == 8160
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(8160))


def test_padded_feed() -> None:
    feed = padded_feed([[5, 6, 7], [8]])
    np.testing.assert_array_equal(feed["input_ids"], [[5, 6, 7], [8, 0, 0]])
    np.testing.assert_array_equal(feed["attention_mask"], [[1, 1, 1], [1, 0, 0]])
    assert not feed["token_type_ids"].any()


def test_an_embedding_is_the_unit_mean_of_the_real_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose hidden states are (token id, 1); documents come back from their batch out of order."""

    class Echo:
        def run(self, _: Sequence[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
            ids = feed["input_ids"].astype(np.float32)
            return [np.stack([ids, np.ones_like(ids)], axis=-1)]

    batch = Batch(np.array([1, 0]), padded_feed([[3], [0, 8]]))
    monkeypatch.setattr(minilm, "minilm_batches", lambda folder, texts: [batch])
    embeddings = minilm.embed(Echo(), ModelFolder(tmp_path), ["first", "second"])
    expected = [[4 / math.sqrt(17), 1 / math.sqrt(17)], [3 / math.sqrt(10), 1 / math.sqrt(10)]]
    np.testing.assert_allclose(embeddings, expected, rtol=1e-6)


def test_minilm_texts_are_unused_and_shuffled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Documents are numbers here; the probe trains on the first 2,000 of the same permutation."""
    documents = [str(number) for number in range(2100)]

    def batches(folder: ModelFolder, texts: Sequence[str], *, size: int) -> list[Batch]:
        ids = sorted([int(text)] for text in texts)
        starts = range(0, len(ids), size)
        return [Batch(np.arange(size), padded_feed(ids[start : start + size])) for start in starts]

    monkeypatch.setattr(data, "labelled_documents", lambda folder, name: (documents, documents))
    monkeypatch.setattr(data, "minilm_batches", batches)
    feeds = [feed["input_ids"][:, 0].tolist() for feed in data.minilm_texts(64, 8, ModelFolder(tmp_path))]
    seen = {number for feed in feeds for number in feed}
    trained = set(np.random.RandomState(0).permutation(2100)[: minilm.REUTERS_TRAIN].tolist())
    assert len(seen) == 64
    assert not seen & trained
    assert feeds != sorted(feeds)


def test_random_crops_are_the_same_again(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 256, (120, 100, 3), np.uint8)
    image_module.fromarray(noise).save(tmp_path / "a.png")
    chosen = [photos.Photo(tmp_path / "a.png", 0, 0)]
    first, again = (np.concatenate(list(photos.random_crops(chosen, 3, seed=0))) for _ in range(2))
    other = np.concatenate(list(photos.random_crops(chosen, 3, seed=1)))
    assert first.shape == (3, 3, photos.SIZE, photos.SIZE)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1.0  # (255 - 127) / 128
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_words_have_plain_quotes() -> None:
    assert words("\u2018Well,\u2019 said 3 cats--and left.") == ["Well,'", "said", "cats--and", "left."]


def test_speech_state_is_handed_on() -> None:
    """A model that adds 0.25 to its state at every frame and answers with it."""

    class Counter:
        def run(self, _: Sequence[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
            return [feed["state"][0, :, :1] + np.float32(0.25), feed["state"] + np.float32(0.25)]

    heard = list(speech.frames(np.zeros(3 * speech.FRAME + 5, np.float32)))
    np.testing.assert_array_equal(silero._listen(Counter(), heard), [0.25, 0.5, 0.75])


def test_speech_frames_carry_their_context() -> None:
    samples = np.arange(1, 2 * speech.FRAME + 1, dtype=np.float32)
    first, second = speech.frames(samples)
    assert first.shape == (1, speech.CONTEXT + speech.FRAME)
    assert not first[0, : speech.CONTEXT].any()
    np.testing.assert_array_equal(second[0, : speech.CONTEXT], first[0, -speech.CONTEXT :])
    np.testing.assert_array_equal(second[0, speech.CONTEXT :], samples[speech.FRAME :])


CONFIG = MagikaConfig(labels=("python", "shell"), begin=6, end=4, block=8, padding=256)


def test_magika_sees_both_ends_stripped(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_bytes(b"\n abcdefghij...uvwxyz\n\n")
    seen = features(tmp_path / "x.py", CONFIG)
    assert bytes(seen.tolist()) == b"abcdef" + b"wxyz"


def test_magika_pads_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_bytes(b"ab")
    np.testing.assert_array_equal(features(tmp_path / "x.py", CONFIG), [97, 98] + [256] * 6 + [97, 98])


def test_calibration_files_are_not_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for index in range(70):
        (tmp_path / f"{index}.py").write_bytes(b"x" * 300)
        (tmp_path / f"{index % 5}.sh").write_bytes(b"x" * 300)
    monkeypatch.setattr(file_bytes, "ROOTS", (str(tmp_path),))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "none"))
    evaluated, calibrated = evaluation_files(CONFIG), list(calibration_files(CONFIG))
    assert len(evaluated) == 65
    assert len(calibrated) == 10
    assert not {file.path for file in evaluated} & {file.path for file in calibrated}


def test_lines_are_the_same_again_and_of_many_widths() -> None:
    pytest.importorskip("PIL")
    text = [f"word{index}" * (1 + index % 3) for index in range(50)]

    def drawn(seed: int) -> list[np.ndarray[Any, Any]]:
        artist = LineArtist(text, seed)
        return [recognizer_input(artist.picture(artist.text(2, 4), hard=True)) for _ in range(8)]

    first, again, other = drawn(1), drawn(1), drawn(2)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any(left.shape != right.shape for left, right in zip(first, other, strict=True))
    assert {line.shape[:3] for line in first} == {(1, 3, 48)}
    assert len({line.shape[3] for line in first}) > 4
    assert classifier_input(LineArtist(text, 1).picture("hello", hard=False)).shape == (1, 3, 48, 192)


def test_greedy_feeds_one_token_at_a_time() -> None:
    """A model that answers at each position with the number of positions up to there."""

    class Positions:
        def __init__(self) -> None:
            self.widths: list[int] = []

        def get_inputs(self) -> list[Any]:
            past = SimpleNamespace(name="past_key_values.0.key", shape=["B", 2, "P", 4])
            return [SimpleNamespace(name="input_ids", shape=["B", "S"]), past]

        def run(self, names: Sequence[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
            assert names == ["logits", "present.0.key"]
            count = feed["input_ids"].shape[1]
            self.widths.append(count)
            present = np.concatenate([feed["past_key_values.0.key"], np.zeros((1, 2, count, 4))], axis=2)
            seen = np.arange(count) + 1 + feed["past_key_values.0.key"].shape[2]
            return [np.eye(20)[seen[None]], present]

    model = Positions()
    assert list(greedy(model, [7, 7, 7], steps=4)) == [3, 4, 5, 6]
    assert model.widths == [3, 1, 1, 1]
