"""EfficientNet-Lite0: distance of its logits from the float model's, twenty photos, and an MNIST probe.

There is no labelled ImageNet set in a package, so the distance carries the weight: 200 crops of ten photos
that calibration never sees. Twenty labelled photos are a smoke test (one photo is 5 %), and the probe tells
whether the features in front of the classifier still separate things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..candidate import Candidate, Score, open_session
from ..errors import SuiteError, require
from ..graph import float_tensor
from ..metrics import sqnr_db, top1_agreement
from ..photos import center_crop, digits, enlarged_digits, evaluation_photos, photos, random_crops

CROPS = 200
CROP_SEED = 1
"""Any other than calibration's."""

DIGITS, PROBE_TRAIN_SHARE = 2000, 0.65
FEATURES = 1280
BATCH = 10

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class LogitScore(Score):
    """Against the float model: signal to noise of the logits in dB (null: bit-identical), equal top-1."""

    sqnr_db: float
    top1_agreement: float
    crops: int


@dataclass(frozen=True, slots=True)
class PhotoScore(Score):
    """How many of the photos' center crops are classified right, first or among the first five."""

    top1: int
    top5: int
    photos: int


@dataclass(frozen=True, slots=True)
class ProbeScore(Score):
    """Test accuracy of a logistic regression from pooled features to MNIST digits."""

    accuracy: float
    digits: int


def logits(candidate: Candidate) -> LogitScore:
    """Compare logits crop by crop; `limit` counts crops."""
    reference, session = candidate.reference_session(), candidate.session()
    expected, got = [], []
    for crop in random_crops(evaluation_photos(candidate.folder), candidate.at_most(CROPS), seed=CROP_SEED):
        expected.append(reference.run(["logits"], {"input": crop})[0])
        got.append(session.run(["logits"], {"input": crop})[0])
    clean, noisy = np.concatenate(expected), np.concatenate(got)
    agreement = float(top1_agreement(clean, noisy).mean())
    return LogitScore(sqnr_db(clean, noisy), agreement, len(clean))


def labelled_photos(candidate: Candidate) -> PhotoScore:
    """Classify the photos; `limit` counts photos."""
    session, chosen = candidate.session(), photos(candidate.folder)
    chosen = chosen[: candidate.at_most(len(chosen))]
    top1 = top5 = 0
    for photo in chosen:
        best = np.argsort(-session.run(["logits"], {"input": center_crop(photo)})[0][0])[:5]
        top1 += int(best[0] == photo.label)
        top5 += int(photo.label in best)
    return PhotoScore(top1, top5, len(chosen))


def probe(candidate: Candidate) -> ProbeScore:
    """Fit the probe on 65 % of the digits, test it on the rest; `limit` counts digits in all."""
    model = onnx.load(candidate.model)
    features = _feature_output(model)
    session = open_session(model.SerializeToString(), library=candidate.library)
    images, labels = digits(candidate.folder, candidate.at_most(DIGITS))
    rows = []
    for start in range(0, len(images), BATCH):
        feed = {"input": enlarged_digits(images[start : start + BATCH])}
        rows.append(session.run([features], feed)[0])
    every, cut = np.concatenate(rows), int(PROBE_TRAIN_SHARE * len(images))
    classifier = require("sklearn.linear_model").LogisticRegression(max_iter=3000, C=0.1)
    classifier.fit(every[:cut], labels[:cut])
    return ProbeScore(float(classifier.score(every[cut:], labels[cut:])), len(labels) - cut)


def _feature_output(model: onnx.ModelProto) -> str:
    """Make the pooled features [N, 1280] an output of the model, and name it."""
    flattened: list[str] = [node.output[0] for node in model.graph.node if node.op_type == "Flatten"]
    if len(flattened) != 1:
        raise SuiteError(f"found {len(flattened)} Flatten nodes, expected the one in front of the classifier")
    model.graph.output.append(float_tensor(flattened[0], ["N", FEATURES]))
    return flattened[0]
