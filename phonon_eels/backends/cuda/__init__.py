"""Kernels on NVIDIA GPUs. Only here may numba.cuda and CuPy be imported."""
