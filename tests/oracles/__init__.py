"""Slow, obvious twins of the compiled kernels: what the fast ones must equal."""
