"""Linear systems of grids: stencils, multigrid, conjugate gradients."""
