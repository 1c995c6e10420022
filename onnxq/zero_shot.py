"""Zero-shot data: pictures fitted until a network's BatchNormalizations see what they saw in training.

A BatchNormalization stores, per channel, the mean and variance of its input over the training data. Pictures whose
statistics agree with these, layer by layer, drive the activations into the ranges that real data would. The pictures
are random dead leaves (see onnxq.dead_leaves); what is fitted are the few numbers that each follows from, so nothing
but forward runs is needed:

1. The scale of the input: contrasts and brightnesses over three decades are tried, the best is the centre.
2. A set is chosen from a pool, one picture at a time, so that the moments of the whole set come closest.
3. The set is improved: mutations of its members replace members wherever that brings the moments closer.

Closeness is the Kullback-Leibler divergence between normal distributions of the set's and the stored moments,
averaged over channels, then over layers. Moments of a set are means of its pictures' moments, so each picture runs
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxq.affine import FloatArray
from onnxq.dead_leaves import Look, mutated, paint, random_look
from onnxq.model import Model
from onnxq.scratch import Scratch, scratch_copy
from onnxq.session import Feed, Session, SessionOptions

__all__ = ["Fit", "fit_pictures", "statistics"]

_Moments = npt.NDArray[np.float64]

_CONTRASTS = tuple(0.25 * 2.0**step for step in range(10))  # 0.25 .. 128: inputs of unit variance up to bytes
_BRIGHTNESSES = (0.0, 0.5, 1.0, 2.0)
"""Mean in standard deviations: about 0 for normalised inputs, 1 to 2 for inputs in 0..1 or 0..255."""

_WORST_CHANNEL = 20.0
"""Divergence at which a channel's say ends, so that dead channels (variance near 0) do not decide everything."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Pictures and how well they match.

    Attributes:
        feeds: one picture each, as batches of one.
        layers: BatchNormalizations that were matched.
        start: mean divergence of standard normal noise, in nats per channel.
        reached: mean divergence of the pictures as a set.
    """

    feeds: tuple[Feed, ...]
    layers: int
    start: float
    reached: float


@dataclass(frozen=True, slots=True)
class _Layer:
    """One BatchNormalization: its input, and what it stored."""

    value: str
    mean: _Moments
    variance: _Moments


def statistics(graph: ir.Graph) -> list[_Layer]:
    """The BatchNormalizations behind convolutions whose stored statistics can be read."""
    layers = []
    for node in graph:
        if node.op_type != "BatchNormalization" or node.domain != "" or len(node.inputs) < 5:
            continue
        source, mean, variance = node.inputs[0], node.inputs[3], node.inputs[4]
        producer = source.producer() if source is not None else None
        if producer is None or producer.op_type not in ("Conv", "ConvTranspose"):
            continue  # others may lack the spatial axes that moments are taken over
        tensors = [
            value.const_value for value in (mean, variance) if value is not None and value.const_value is not None
        ]
        if source is not None and source.name and len(tensors) == 2:
            stored = [tensor.numpy().astype(np.float64) for tensor in tensors]
            layers.append(_Layer(source.name, stored[0], np.maximum(stored[1], 1e-10)))
    return layers


def fit_pictures(
    model: Model,
    feed: Feed,
    options: SessionOptions,
    *,
    count: int,
    seed: int,
    trials: int = 160,
    on_trial: Callable[[int], None] = lambda index: None,
) -> Fit | None:
    """Fit pictures to the statistics that a model stores.

    Args:
        model: as loaded, its BatchNormalizations not folded.
        feed: one batch that runs, with exactly one float input of rank 3 or 4; shapes are kept.
        options: of the session.
        count: pictures to make.
        seed: of everything random.
        trials: pictures to try in steps 2 and 3 together.
        on_trial: called before each run.
    Returns:
        None when there is nothing to fit: no statistics, or no such input.
    """
    layers = statistics(model.ir.graph)
    inputs = [name for name, array in feed.items() if array.dtype.kind == "f" and array.ndim in (3, 4)]
    if not layers or len(inputs) != 1:
        return None
    with scratch_copy(model) as scratch:
        judge = _Judge(scratch, options, layers, feed, inputs[0])
        return _search(judge, np.random.default_rng(seed), count=count, trials=trials, on_trial=on_trial)


class _Judge:
    """Runs pictures and compares moments with what the layers stored.

    Moments are float64 [2, channels]: E[x] and E[x^2], all layers' channels in a row.
    """

    def __init__(
        self, scratch: Scratch, options: SessionOptions, layers: Sequence[_Layer], feed: Feed, picture_input: str
    ) -> None:
        self._session, self._outputs = _with_moments(scratch, options, [layer.value for layer in layers])
        self._feed = feed
        self._input = picture_input
        self._mean = np.concatenate([layer.mean for layer in layers])
        self._variance = np.concatenate([layer.variance for layer in layers])
        share = [np.full(layer.mean.size, 1 / layer.mean.size / len(layers)) for layer in layers]
        self._share = np.concatenate(share)  # of each channel in the loss; sums to 1

    @property
    def layers(self) -> int:
        """BatchNormalizations that are compared with."""
        return len(self._outputs)

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return int(self._feed[self._input].shape[1])

    def feed(self, picture: FloatArray) -> Feed:
        """The batch that shows this picture."""
        like = self._feed[self._input]
        return {**self._feed, self._input: np.repeat(picture, like.shape[0], axis=0).astype(like.dtype)}

    def painted(self, look: Look) -> Feed:
        """The batch that shows this look."""
        return self.feed(paint(look, self._feed[self._input].shape))

    def noise(self, rng: np.random.Generator) -> FloatArray:
        """Standard normal noise in the shape of a picture."""
        return rng.standard_normal((1, *self._feed[self._input].shape[1:])).astype(np.float32)

    def moments(self, feed: Feed) -> _Moments:
        """Run one batch: [2, channels]."""
        fetched = self._session.run(feed, [name for pair in self._outputs for name in pair])
        rows = [
            np.concatenate([fetched[pair[which]].mean(axis=0, dtype=np.float64).reshape(-1) for pair in self._outputs])
            for which in (0, 1)
        ]
        return np.stack(rows)

    def divergence(self, moments: _Moments) -> npt.NDArray[np.float64]:
        """Mean divergence in nats per channel of moments [..., 2, channels]: [...]."""
        mean = moments[..., 0, :]
        variance = np.maximum(moments[..., 1, :] - mean**2, 1e-10)
        ratio = variance / self._variance
        each = (ratio - np.log(ratio) - 1 + (mean - self._mean) ** 2 / self._variance) / 2
        return np.asarray(np.minimum(np.nan_to_num(each, nan=_WORST_CHANNEL), _WORST_CHANNEL) @ self._share)


def _with_moments(
    scratch: Scratch, options: SessionOptions, values: Sequence[str]
) -> tuple[Session, list[tuple[str, str]]]:
    """A session that returns E[x] and E[x^2] per sample and channel of each value, and the outputs' names."""
    proto = onnx.ModelProto()
    proto.CopyFrom(scratch.proto)
    outputs = [(f"{name}/onnxq_mean", f"{name}/onnxq_square") for name in values]
    for value, (mean, square) in zip(values, outputs, strict=True):
        product = f"{square}/product"
        proto.graph.node.extend(
            [
                onnx.helper.make_node("GlobalAveragePool", [value], [mean]),
                onnx.helper.make_node("Mul", [value, value], [product]),
                onnx.helper.make_node("GlobalAveragePool", [product], [square]),
            ]
        )
    session, _ = replace(scratch, proto=proto).session(options, [name for pair in outputs for name in pair])
    return session, outputs


def _search(
    judge: _Judge, rng: np.random.Generator, *, count: int, trials: int, on_trial: Callable[[int], None]
) -> Fit:
    """Steps 1 to 3 of the module's docstring."""
    tried = 0

    def judged(look: Look) -> _Moments:
        nonlocal tried
        tried += 1
        on_trial(tried)
        return judge.moments(judge.painted(look))

    start = float(judge.divergence(judge.moments(judge.feed(judge.noise(rng)))))
    contrast, brightness = _scale(judge, rng, judged)
    pool = [
        random_look(rng, channels=judge.channels, contrast=contrast, brightness=brightness)
        for _ in range(max(count, trials // 2))
    ]
    moments = np.stack([judged(look) for look in pool])  # [pool, 2, channels]
    chosen = _greedy(judge, moments, count)
    looks, moments = [pool[index] for index in chosen], moments[chosen]
    best = float(judge.divergence(moments.mean(axis=0)))
    for _ in range(max(0, trials - len(pool))):  # 3
        child = mutated(looks[int(rng.integers(count))], rng)
        its = judged(child)
        others = moments.mean(axis=0) + (its - moments) / count  # [count, 2, channels]: the set with each one replaced
        losses = judge.divergence(others)
        place = int(np.argmin(losses))
        if losses[place] < best:
            best = float(losses[place])
            looks[place], moments[place] = child, its
    return Fit(tuple(judge.painted(look) for look in looks), judge.layers, start, best)


def _scale(judge: _Judge, rng: np.random.Generator, judged: Callable[[Look], _Moments]) -> tuple[float, float]:
    """Step 1: contrast and brightness to look around."""
    looks = [random_look(rng, channels=judge.channels, contrast=1.0, brightness=0.0) for _ in range(2)]

    def loss(contrast: float, brightness: float) -> float:
        pictures = [replace(look, contrast=contrast, brightness=brightness) for look in looks]
        return float(judge.divergence(np.mean([judged(look) for look in pictures], axis=0)))

    contrast = min(_CONTRASTS, key=lambda value: loss(value, 0.0))
    brightness = min(_BRIGHTNESSES, key=lambda value: loss(contrast, value))
    return contrast, brightness


def _greedy(judge: _Judge, moments: _Moments, count: int) -> list[int]:
    """Step 2: indices of the pictures whose moments [pool, 2, channels] together come closest."""
    chosen: list[int] = []
    total = np.zeros_like(moments[0])
    for size in range(1, count + 1):
        losses = judge.divergence((total + moments) / size)
        losses[chosen] = np.inf
        chosen.append(int(np.argmin(losses)))
        total = total + moments[chosen[-1]]
    return chosen
