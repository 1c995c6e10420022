"""How fast the packed kernels are, beside onnxruntime's own on the same codes. Run `python -m benchmarks.kernels`."""
