"""The root of a node, and the path to it after a search."""

import numpy as np

from hybridseg.kernels.sparse import union_find as kernels
from tests.oracles.sparse import union_find as oracles


def random_forest(rng, n_nodes):
    """Each node's parent is an earlier node or itself."""
    parent = [rng.integers(max(0, node - 2), node + 1) for node in range(n_nodes)]
    return np.array(parent, np.int32)


def test_find_root_keeps_roots(rng):
    for n_nodes in (1, 2, 60):
        parent = random_forest(rng, n_nodes)
        expected = [oracles.find_root(parent, node) for node in range(n_nodes)]
        order = rng.permutation(n_nodes)
        found = {node: kernels.find_root(parent, node) for node in order}
        assert [found[node] for node in range(n_nodes)] == expected
        assert [oracles.find_root(parent, node) for node in range(n_nodes)] == expected


def test_a_search_halves_the_path():
    parent = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7], np.int32)
    assert kernels.find_root(parent, 8) == 0
    assert parent.tolist() == [0, 0, 0, 2, 2, 4, 4, 6, 6]
