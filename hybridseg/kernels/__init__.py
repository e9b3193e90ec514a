"""Compiled loops: arrays in, arrays out, no checks. Nothing else in the package compiles."""
