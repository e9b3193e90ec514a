"""Marginals by random walks from seeds."""
