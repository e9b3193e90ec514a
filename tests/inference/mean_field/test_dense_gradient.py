"""Mean field that can be differentiated: equal marginals, and gradients of an N^2 autograd twin."""

import numba
import numpy as np
import pytest

from hybridseg.inference import DenseModel
from hybridseg.inference.mean_field.dense_gradient import DenseTape, last_marginals
from hybridseg.kernels.dense.dense_filter import embed
from hybridseg.pairwise import FeatureKernel
from tests.oracles.dense import dense_filter
from tests.oracles.dense import mean_field as oracle

torch = pytest.importorskip("torch")


def features_of(rng, n=50, scale=3.0):
    return [(rng.random((n, d)) * scale).astype(np.float32) for d in (2, 5)]


def responses_of(rng, n_labels, kind="full"):
    found = [np.eye(n_labels) * w for w in (1.5, 2.0)]
    if kind == "full":
        found = [matrix + rng.standard_normal(matrix.shape) * 0.3 for matrix in found]
    return found


def autograd(costs, matrices, responses, n_iter, given):
    """Gradients by torch in float64, with the kernel matrices (n, n) written out."""
    costs = torch.tensor(costs, dtype=torch.float64, requires_grad=True)
    responses = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in responses]
    marginals = torch.softmax(-costs, dim=1)
    for _ in range(n_iter):
        messages = [
            torch.as_tensor(m) @ marginals @ a for m, a in zip(matrices, responses, strict=True)
        ]
        marginals = torch.softmax(sum(messages) - costs, dim=1)
    (marginals * torch.as_tensor(given.astype(np.float64))).sum().backward()
    slopes = [torch.zeros_like(a) if a.grad is None else a.grad for a in responses]
    return marginals.detach().numpy(), costs.grad.numpy(), [slope.numpy() for slope in slopes]


@pytest.mark.parametrize("kind", ["potts", "full"])
@pytest.mark.parametrize("n_labels", [2, 3, 8, 21])
@pytest.mark.parametrize("n_iter", [0, 1, 5])
def test_gradient_equals_autograd_of_the_same_filter(n_iter, n_labels, kind, rng):
    features, responses = features_of(rng), responses_of(rng, n_labels, kind)
    costs, given = rng.standard_normal((2, 50, n_labels)).astype(np.float32)
    dense = embed(features, 50)
    matrices = [dense_filter.filtered(dense, scales, np.eye(50)) for scales in ([1, 0], [0, 1])]
    tape = DenseTape.record(dense, costs, responses, n_iter)
    found = tape.gradient(given)
    expected = autograd(costs, matrices, responses, n_iter, given)
    np.testing.assert_allclose(tape.marginals[-1], expected[0], atol=2e-6)
    np.testing.assert_allclose(found.costs, expected[1], atol=2e-5)
    for ours, theirs in zip(found.responses, expected[2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert found.corners.size == 0


def test_gradient_is_near_that_of_exact_gaussians(rng):
    """The lattice approximates the Gaussian, and its gradient the gradient."""
    grid = np.stack(np.indices((12, 14)), axis=-1).reshape(-1, 2).astype(np.float32)
    colors = (grid[:, :1] > 6) * 3 + rng.random((168, 1)).astype(np.float32)
    features = [grid / 2, np.hstack([grid / 5, colors])]
    costs, given = rng.standard_normal((2, 168, 4)).astype(np.float32)
    responses = responses_of(rng, 4, "potts")
    matrices = [oracle.normalized(oracle.gaussian_matrix(each)) for each in features]
    expected = autograd(costs, matrices, responses, 5, given)
    found = DenseTape.record(embed(features, 168), costs, responses, 5).gradient(given)
    for ours, theirs in zip(
        [found.costs, *found.responses], [expected[1], *expected[2]], strict=True
    ):
        likeness = np.vdot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert likeness > 0.97


def loss(features, costs, responses, given, n_iter=3):
    """The loss in float64, with the slow lattice."""
    dense = dense_filter.embed(features, len(costs))
    marginals = oracle.softmax(-costs.astype(np.float64))
    for _ in range(n_iter):
        messages = [
            dense_filter.filtered(dense, scales, marginals) @ a
            for scales, a in zip(([1, 0], [0, 1]), responses, strict=True)
        ]
        marginals = oracle.softmax(sum(messages) - costs)
    return float((marginals * given).sum())


def test_gradient_of_features_equals_differences(rng):
    features, responses = features_of(rng, 20), responses_of(rng, 3)
    costs, given = rng.standard_normal((2, 20, 3)).astype(np.float32)
    dense = embed(features, 20)
    found = DenseTape.record(dense, costs, responses, 3).gradient(given, corners=True)
    exact = [each.astype(np.float64) for each in features]
    for kernel in range(2):
        ours = found.of_features(dense, kernel, features[kernel])
        assert np.abs(ours).max() > 1e-2
        for i, j in zip(
            rng.integers(0, 20, 12), rng.integers(0, exact[kernel].shape[1], 12), strict=True
        ):
            sides = []
            for step in (1e-6, -1e-6):
                moved = [each.copy() for each in exact]
                moved[kernel][i, j] += step
                sides.append(loss(moved, costs, responses, given))
            assert ours[i, j] == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=2e-5)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_marginals_are_those_of_mean_field(n_labels, rng):
    image = rng.integers(0, 255, (17, 23, 3)).astype(np.uint8)
    unary = rng.standard_normal((17, 23, n_labels)).astype(np.float32)
    extra = FeatureKernel(2.0, rng.random((17, 23, 1)))
    model = DenseModel.of(image, spatial_width=2.0, bilateral_width=6.0, kernels=[extra])
    expected = model.mean_field(unary, spatial_weight=1.0, bilateral_weight=3.0, n_iter=4)
    rows = unary.reshape(-1, n_labels)
    responses = [np.eye(n_labels) * w for w in (1.0, 3.0, 2.0)]
    found = last_marginals(model.filter, rows, responses, 4)
    np.testing.assert_allclose(found.reshape(unary.shape), expected.marginals, atol=2e-5)
    tape = DenseTape.record(model.filter, rows, responses, 4)
    np.testing.assert_array_equal(tape.marginals[-1], found)
    assert tape.marginals.shape == (5, len(rows), n_labels)


def test_gradients_do_not_depend_on_the_number_of_threads(rng):
    features = [(rng.random((4000, d)) * 9).astype(np.float32) for d in (2, 5)]
    costs, given = rng.standard_normal((2, 4000, 6)).astype(np.float32)
    responses = responses_of(rng, 6)
    n_threads, found = numba.get_num_threads(), []
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            dense = embed(features, 4000)
            tape = DenseTape.record(dense, costs, responses, 3)
            gradient = tape.gradient(given, corners=True)
            found.append((gradient.costs, *gradient.responses, gradient.corners))
    finally:
        numba.set_num_threads(n_threads)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_gradient_of_zeros_is_zero(rng):
    dense = embed(features_of(rng), 50)
    tape = DenseTape.record(dense, rng.random((50, 3)).astype(np.float32), [np.eye(3)] * 2, 4)
    found = tape.gradient(np.zeros((50, 3), np.float32), corners=True)
    assert not found.costs.any()
    assert not found.corners.any()
    assert not any(matrix.any() for matrix in found.responses)
