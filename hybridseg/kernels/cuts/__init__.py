"""Minimum cuts and the moves that use them."""
