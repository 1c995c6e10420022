"""Models that packages publish as ONNX already: they are only copied to where the suite looks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..folder import ModelFolder, written_together

OCR_SOURCE = "rapidocr/rapidocr/models"
MAGIKA_SOURCE = "magika/magika/models/standard_v3_3"
SILERO_SOURCE = "silero_vad/silero_vad/data"


def copy_ocr_recognizer(folder: ModelFolder) -> None:
    """PP-OCRv6 text recognition: x float32 [N, 3, 48, width] -> probabilities [N, width / 8, 18710]."""
    _copy(folder.source(OCR_SOURCE), folder.root / "ppocrv6", "PP-OCRv6_rec_small.onnx")


def copy_ocr_detector(folder: ModelFolder) -> None:
    """PP-OCRv6 text detection: x float32 [N, 3, H, W] -> probability of text [N, 1, H, W]."""
    _copy(folder.source(OCR_SOURCE), folder.root / "ppocrv6", "PP-OCRv6_det_small.onnx")


def copy_ocr_classifier(folder: ModelFolder) -> None:
    """PP-OCR v2.0 upside-down classifier: x float32 [N, 3, 48, 192] -> probabilities [N, 2]."""
    _copy(folder.source(OCR_SOURCE), folder.root / "ppocrv6", "ch_ppocr_mobile_v2.0_cls_mobile.onnx")


def copy_magika(folder: ModelFolder) -> None:
    """Magika file types: bytes int32 [N, 2048] -> probabilities [N, 214]; its labels come along."""
    names = ("model.onnx", "config.min.json", "metadata.json")
    _copy(folder.source(MAGIKA_SOURCE), folder.root / "magika", *names)


def copy_silero(folder: ModelFolder) -> None:
    """Silero voice activity: one frame of 512 samples and a state in, probability of speech and state out."""
    _copy(folder.source(SILERO_SOURCE), folder.root / "silero-vad", "silero_vad.onnx")


def _copy(source: Path, target: Path, *names: str) -> None:
    with written_together(target) as part:
        for name in names:
            shutil.copyfile(source / name, part / name)
