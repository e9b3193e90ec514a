"""Explicit SIMD vectors for kernels, and the rules for their use."""
