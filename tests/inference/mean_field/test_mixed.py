"""Sweeps of mixed energies without edges equal softmax updates."""

import numpy as np

from hybridseg.inference.mean_field.mixed import mixed_sweeps


def test_without_edges_each_site_follows_its_messages(rng):
    rows = rng.normal(0, 1, (6, 3)).astype(np.float32)
    told = rng.normal(0, 1, (6, 3)).astype(np.float32)
    marginals, changes = mixed_sweeps(
        *(rows, [], (6,), np.zeros((0, 0), np.float32), lambda _: told),
        n_iter=60,
        tol=0.0,
        damping=0.5,
        start=None,
    )
    expected = np.exp(-(rows + told).astype(np.float64))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(marginals, expected, atol=1e-6)
    np.testing.assert_allclose(changes[1], changes[0] / 2, rtol=1e-3)  # half is kept
