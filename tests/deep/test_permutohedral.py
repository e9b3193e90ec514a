"""The lattice in operations of torch equals the slow lattice, and its gradients are true."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg.deep.permutohedral import TorchFilter, log_marginals  # noqa: E402
from tests.oracles import lattice  # noqa: E402
from tests.oracles.dense.mean_field import (  # noqa: E402
    gaussian_matrix,
    mean_field,
    normalized,
)


def matrix_of(filter_):
    """The matrix of a filter, by filtering the unit vectors."""
    ones = torch.eye(len(filter_.vertices), dtype=filter_.weights.dtype)
    return filter_.read(filter_.blur(filter_.spread(ones)))


def features_of(n_dims, n=40, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_dims)) * 2


def grid_features(shape=(5, 8), width=3.0):
    axes = np.meshgrid(*(np.arange(n) / width for n in shape), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 5, 8, 30])
def test_equals_the_slow_lattice(n_dims):
    """With 30 dimensions, a name needs several words."""
    features = features_of(n_dims)
    slow = lattice.build(features)
    found = TorchFilter.of(torch.from_numpy(features))
    assert found.ahead.shape[1] - 1 == slow.n_vertices
    expected = normalized(lattice.apply(slow, np.eye(len(features))))
    assert np.allclose(matrix_of(found).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("width", [1.0, 3.0, 0.37])
def test_points_on_borders_fall_to_the_same_side(width):
    features = grid_features(width=width)
    slow = lattice.build(features)
    found = TorchFilter.of(torch.from_numpy(features))
    assert found.ahead.shape[1] - 1 == slow.n_vertices
    expected = normalized(lattice.apply(slow, np.eye(len(features))))
    assert np.allclose(matrix_of(found).numpy(), expected, atol=1e-14)


def test_features_far_from_zero_and_far_apart():
    features = features_of(3) + np.array([1e6, -1e6, 0])
    features[:5] *= 1e3
    slow = lattice.build(features)
    found = TorchFilter.of(torch.from_numpy(features))
    expected = normalized(lattice.apply(slow, np.eye(len(features))))
    assert np.allclose(matrix_of(found).numpy(), expected, atol=1e-12)


def test_points_of_different_images_do_not_meet():
    features = torch.from_numpy(features_of(2))
    alone = matrix_of(TorchFilter.of(features))
    both = torch.cat([features, features[:15]])
    numbers = torch.tensor([0] * 40 + [1] * 15)
    together = matrix_of(TorchFilter.of(both, numbers))
    assert torch.equal(together[:40, :40], alone)
    assert not together[:40, 40:].any()
    assert torch.equal(together[40:, 40:], matrix_of(TorchFilter.of(features[:15])))


def test_one_point_is_its_own_neighbor():
    assert torch.allclose(matrix_of(TorchFilter.of(torch.zeros(1, 2))), torch.ones(1, 1))


def test_order_of_points_does_not_matter():
    features = torch.from_numpy(features_of(3))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first, second = matrix_of(TorchFilter.of(features)), matrix_of(TorchFilter.of(features[order]))
    assert torch.allclose(first[order][:, order], second, atol=1e-14)


@pytest.mark.parametrize("n_dims", [1, 2, 4])
def test_gradient_of_the_filter(n_dims):
    features = torch.from_numpy(features_of(n_dims, n=7)).requires_grad_()
    values = torch.from_numpy(features_of(3, n=7, seed=1)).requires_grad_()

    def filtered(features, values):
        found = TorchFilter.of(features)
        return found.read(found.blur(found.spread(values)))

    assert torch.autograd.gradcheck(filtered, (features, values))


def compatibility_of(n_labels, seed=0):
    random = np.random.default_rng(seed).random((n_labels, n_labels))
    return (random + random.T) / 2


@pytest.mark.parametrize("n_labels", [1, 2, 5])
@pytest.mark.parametrize("n_iter", [0, 1, 4])
def test_mean_field_equals_explicit_matrices(n_labels, n_iter):
    costs = np.random.default_rng(2).normal(size=(40, n_labels))
    matrix, weights = compatibility_of(n_labels), (1.5, 0.7)
    features = [features_of(2), features_of(3, seed=5)]
    filters = [TorchFilter.of(torch.from_numpy(each)) for each in features]
    responses = torch.stack([torch.from_numpy(-weight * matrix) for weight in weights])
    found = log_marginals(filters, torch.from_numpy(costs), responses, n_iter)
    terms = [
        (weight, normalized(lattice.apply(lattice.build(each), np.eye(40))))
        for weight, each in zip(weights, features, strict=True)
    ]
    assert np.allclose(found.exp().numpy(), mean_field(costs, terms, matrix, n_iter), atol=1e-12)


def explicit(matrix, weights, costs, responses, n_iter):
    """Mean field with kernel matrices (m, n, n) in autograd."""
    scores = -costs
    for _ in range(n_iter):
        messages = torch.einsum("kij,jl,klm->im", matrix, scores.softmax(dim=1), responses)
        scores = messages - costs
    return (scores.log_softmax(dim=1) * weights).sum()


def gradients(loss, inputs):
    return torch.autograd.grad(loss, inputs)


def test_gradients_equal_those_with_explicit_matrices():
    rng = np.random.default_rng(0)
    costs = torch.from_numpy(rng.normal(size=(30, 3))).requires_grad_()
    responses = torch.from_numpy(rng.normal(size=(2, 3, 3))).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(30, 3)))
    features = [features_of(2, n=30), features_of(4, n=30, seed=1)]
    filters = [TorchFilter.of(torch.from_numpy(each)) for each in features]
    mine = gradients(
        (log_marginals(filters, costs, responses, 4) * weights).sum(), [costs, responses]
    )
    own = torch.stack([matrix_of(each) for each in filters])
    exact = gradients(explicit(own, weights, costs, responses, 4), [costs, responses])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine, exact, strict=True))


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_gradients_are_near_those_of_the_exact_gaussian():
    rng = np.random.default_rng(0)
    features = [grid_features((10, 12), width=2.3), grid_features((10, 12), width=5.1)]
    costs = torch.from_numpy(rng.normal(size=(120, 3))).requires_grad_()
    responses = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1).requires_grad_()
    target = torch.from_numpy(np.eye(3)[rng.integers(3, size=120)]) / 120
    filters = [TorchFilter.of(torch.from_numpy(each)) for each in features]
    mine = gradients(
        (log_marginals(filters, costs, responses, 4) * target).sum(), [costs, responses]
    )
    gaussian = np.array([normalized(gaussian_matrix(each)) for each in features])
    loss = explicit(torch.from_numpy(gaussian), target, costs, responses, 4)
    for own, exact in zip(mine, gradients(loss, [costs, responses]), strict=True):
        assert cosine(own, exact) > 0.995
        assert 0.9 < float(own.norm() / exact.norm()) < 1.1
