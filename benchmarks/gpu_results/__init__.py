"""Results of kernels/gpu_check.sh that people with a GPU have contributed: one JSON each, rendered by `__main__`."""
