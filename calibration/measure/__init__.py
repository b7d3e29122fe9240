"""Measuring on a GPU: needs Python, numpy, PyTorch, Triton and `kernels`; nothing else of ours."""
