"""Modelled bounds of the CUDA kernels, unverified on hardware: `python -m benchmarks.cuda_bounds`.

A bound is the least time that bytes, issue slots or tensor cores allow; a kernel cannot be faster, and nothing
here says that it is as fast. No figure of this module was measured.
"""
