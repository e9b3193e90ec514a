"""The network near boundaries: local, equivariant to labels, and nothing at first."""

import itertools

import pytest
import torch

from hybridseg.deep.boundary.network import BoundaryNetwork, dilations

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def network_of(*, zero=False, **options):
    torch.manual_seed(0)
    network = BoundaryNetwork(3, 4, **({"hidden": 4, "depth": 3, "reach": 4} | options))
    if not zero:
        torch.nn.init.normal_(network.last.weight)
    return network


def inputs_of(side=15, ndim=2, n=2):
    torch.manual_seed(1)
    spatial = (side,) * ndim
    scores = torch.randn(n, 4, *spatial).log_softmax(dim=1)
    return scores, torch.rand(n, *spatial), 255 * torch.rand(n, 3, *spatial)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_new_network_corrects_nothing(ndim):
    network = network_of(zero=True, ndim=ndim)
    found = network(*inputs_of(ndim=ndim, side=11))
    assert tuple(found.shape) == (2, 4) + (11 - 2 * network.reach,) * ndim
    assert not found.any()


def test_a_correction_depends_on_the_reach_only():
    network = network_of()
    scores, nearness, colors = inputs_of(n=1)
    reach = network.reach
    before = network(scores, nearness, colors)
    changed = colors.clone()
    changed[..., 7, 7] += 50
    differs = (network(scores, nearness, changed) != before).any(dim=1)[0]
    rows, columns = differs.nonzero().T
    middle = 7 - reach
    assert differs.any()
    assert (rows - middle).abs().max() <= reach
    assert (columns - middle).abs().max() <= reach
    part = network(*(array[..., 2:, 3:] for array in (scores, nearness, colors)))
    torch.testing.assert_close(part, before[..., 2:, 3:], atol=1e-3, rtol=1e-4)


def test_permuted_labels_and_weights_give_permuted_corrections():
    network, permuted = network_of(), network_of()
    order = torch.tensor([2, 0, 3, 1])
    first = permuted.layers[0].weight.data
    first[:, :4] = first[:, order].clone()
    permuted.last.weight.data = permuted.last.weight.data[order]
    permuted.last.bias.data = permuted.last.bias.data[order]
    scores, nearness, colors = inputs_of()
    expected = network(scores, nearness, colors)[:, order]
    found = permuted(scores[:, order], nearness, colors)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_images_of_a_batch_do_not_see_each_other():
    network, inputs = network_of(), inputs_of()
    both = network(*inputs)
    for i in range(2):
        alone = network(*(array[i : i + 1] for array in inputs))
        torch.testing.assert_close(alone[0], both[i], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("axis", [-1, -2])
def test_mirrored_kernels_correct_mirrored_images(axis):
    """No direction is preferred by anything but the weights."""
    network, mirrored = network_of(), network_of()
    for layer in mirrored.layers:
        layer.weight.data = layer.weight.data.flip(axis)
    inputs = inputs_of()
    found = mirrored(*(array.flip(axis) for array in inputs))
    expected = network(*inputs).flip(axis)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("depth", range(1, 9))
@pytest.mark.parametrize("reach", [1, 3, 6, 12, 40])
def test_dilations_double_up_to_the_reach(depth, reach):
    found = dilations(depth, reach)
    assert len(found) == depth
    assert sum(found) <= max(reach, depth)
    assert found[0] == found[-1] == 1
    assert all(after <= 2 * before for before, after in itertools.pairwise(found))
