"""High-dimensional Gaussian filters on a permutohedral lattice, and mean field with them."""
