import numpy as np

from hybridseg.inference.mean_field.mixed import label_cost_messages, mixed_sweeps
from tests.oracles import energy as oracle


def test_the_messages_of_label_costs_equal_the_products(rng):
    marginals = rng.dirichlet(np.ones(4), 7).astype(np.float32)
    marginals[2] = [1, 0, 0, 0]
    costs = np.array([3.0, 1.0, -2.0, 5.0])
    found = label_cost_messages(marginals, costs)
    expected = oracle.label_cost_messages(marginals, costs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    marginals[4] = [1, 0, 0, 0]
    assert (label_cost_messages(marginals, costs)[:, 0] == 0).all()
    many = np.full((100_000, 2), 0.5, np.float32)
    assert (label_cost_messages(many, np.array([1e6, 1e6])) == 0).all()


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
