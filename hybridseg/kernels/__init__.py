"""Compiled loops: arrays in, arrays out, no checks. No other room of the package uses numba."""
