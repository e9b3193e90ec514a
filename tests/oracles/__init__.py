"""Slow, obvious twins of the compiled kernels, whose results the kernels must equal."""
