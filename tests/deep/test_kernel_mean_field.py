"""The compiled kernels as an autograd function equal operations of torch, forward and backward."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg.deep.kernel_mean_field import KernelMeanField  # noqa: E402
from hybridseg.deep.permutohedral import TorchFilter, log_marginals  # noqa: E402


def problem(n_labels, n=150, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    costs = torch.tensor(rng.normal(size=(n, n_labels)) * scale, dtype=torch.float32)
    responses = torch.tensor(rng.normal(size=(2, n_labels, n_labels)), dtype=torch.float32)
    features = [torch.tensor(rng.normal(size=(n, d)) * 1.5, dtype=torch.float32) for d in (2, 5)]
    weights = torch.tensor(rng.normal(size=(n, n_labels)), dtype=torch.float32)
    return costs, responses, features, weights


def by_kernels(costs, responses, features, n_iter, keep=True):
    return KernelMeanField.apply(costs, responses, n_iter, keep, *features)


def by_torch(costs, responses, features, n_iter):
    return log_marginals([TorchFilter.of(each) for each in features], costs, responses, n_iter)


def in_double(costs, responses, features):
    return costs.double(), responses.double(), [each.double() for each in features]


@pytest.mark.parametrize("n_labels", [1, 2, 3, 8, 9, 33])
@pytest.mark.parametrize("n_iter", [0, 1, 5])
def test_marginals_and_gradients_equal_those_of_torch(n_labels, n_iter):
    costs, responses, features, weights = problem(n_labels)
    found = []
    for solve, inputs in (
        (by_kernels, (costs, responses, features)),
        (by_torch, in_double(costs, responses, features)),
    ):
        leaves = [inputs[0], inputs[1], *inputs[2]]
        leaves = [each.clone().requires_grad_() for each in leaves]
        result = solve(leaves[0], leaves[1], leaves[2:], n_iter)
        loss = (result * weights).sum()
        slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
        found.append([result.detach(), *slopes])
    for own, exact in zip(*found, strict=True):
        exact = torch.zeros_like(own) if exact is None else exact
        assert torch.allclose(own, exact.float(), atol=2e-5 + 1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("scale", [30.0, 300.0, 1e6])
def test_marginals_of_nearly_0_are_exact(scale):
    """A marginal below 1e-30 is rounded to 0, but its logarithm is not."""
    costs, responses, features, _ = problem(4, scale=scale)
    found = by_kernels(costs, responses, features, 3)
    exact = by_torch(*in_double(costs, responses, features), 3)
    assert bool((exact < -69).any())
    assert torch.allclose(found, exact.float(), rtol=1e-4, atol=1e-3)
    assert torch.equal(found, by_kernels(costs, responses, features, 3, keep=False))


def test_gradient_where_marginals_are_nearly_0():
    costs, responses, features, _ = problem(3, scale=200.0)
    costs.requires_grad_()
    target = torch.arange(150) % 3
    torch.nn.functional.cross_entropy(by_kernels(costs, responses, features, 2), target).backward()
    exact = costs.detach().double().requires_grad_()
    rest = in_double(costs.detach(), responses, features)[1:]
    torch.nn.functional.cross_entropy(by_torch(exact, *rest, 2), target).backward()
    assert torch.isfinite(costs.grad).all()
    assert torch.allclose(costs.grad, exact.grad.float(), atol=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_gradient_is_linear_in_what_is_given(factor):
    costs, responses, features, weights = problem(3)
    costs.requires_grad_()
    result = by_kernels(costs, responses, features, 3)
    once = torch.autograd.grad((result * weights).sum(), costs, retain_graph=True)[0]
    scaled = torch.autograd.grad((result * (weights * factor)).sum(), costs)[0]
    assert torch.allclose(scaled / factor, once, rtol=1e-3, atol=1e-5)


def test_gradient_can_be_asked_for_twice():
    costs, responses, features, weights = problem(3)
    costs.requires_grad_()
    loss = (by_kernels(costs, responses, features, 3) * weights).sum()
    first = torch.autograd.grad(loss, costs, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, costs)[0])


def test_a_gradient_of_0_stays_0():
    costs, responses, features, _ = problem(3)
    costs.requires_grad_()
    (by_kernels(costs, responses, features, 3) * 0).sum().backward()
    assert torch.equal(costs.grad, torch.zeros_like(costs))


def test_nan_in_logits_is_not_hidden():
    """A training that diverges has to show it."""
    costs, responses, features, _ = problem(3)
    costs[7, 1] = float("nan")
    assert bool(by_kernels(costs, responses, features, 2).isnan().any())


def test_nothing_is_recorded_without_gradients():
    costs, responses, features, _ = problem(3)
    costs.requires_grad_()
    with torch.no_grad():
        found = by_kernels(costs, responses, features, 3, keep=False)
    assert not found.requires_grad
    assert torch.equal(found, by_kernels(costs, responses, features, 3).detach())
