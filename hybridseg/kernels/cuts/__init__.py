"""Minimum cuts on graphs and pixel grids, and the moves that use them."""
