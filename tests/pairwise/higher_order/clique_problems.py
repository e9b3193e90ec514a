"""Random cliques, for the tests of all solvers."""

import numpy as np

from hybridseg.pairwise import Cliques


def random_cliques(rng, n_sites, n_cliques, dtype=int, *, most=0.5, weighted=False, least=2):
    """Overlapping cliques, whose caps are at most a fraction of their whole cost."""
    sizes = rng.integers(least, max(least + 1, min(n_sites, 7)), n_cliques)
    sites = [rng.permutation(n_sites)[:size] for size in sizes]
    weights = [rng.integers(1, 4, size) if weighted else np.ones(size, int) for size in sizes]
    slope = rng.integers(1, 5, n_cliques)
    if dtype is float:
        slope = slope * rng.random(n_cliques)
        weights = [w * (rng.random(len(w)) if weighted else 1) for w in weights]
    whole = slope * [w.sum() for w in weights]
    cap = (
        np.floor(most * whole).astype(int) if dtype is int else most * rng.random(n_cliques) * whole
    )
    return Cliques(
        np.cumsum([0, *sizes]), np.concatenate(sites), slope, cap, np.concatenate(weights)
    )
