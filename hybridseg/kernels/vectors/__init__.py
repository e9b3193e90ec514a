"""Vectors of a processor in kernels."""
