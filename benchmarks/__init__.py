"""Measurements of onnxq on public models. Not installed with the package: run it from a checkout."""
