"""Gaussian filters in high dimensions on a permutohedral lattice, and mean field with them."""
