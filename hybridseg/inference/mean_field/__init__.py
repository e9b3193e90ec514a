"""Marginals by mean field: fully connected CRFs, grids, graphs of regions."""
