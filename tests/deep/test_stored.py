"""Networks that were written to a file come back with their weights and settings."""

import json

import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from hybridseg import DenseCRF, load, save
from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.stored import describe, restore
from tests.persistence.archives_made import (
    members,
    path_for,
    rewritten,
    written,
)
from tests.persistence.models_made import X, Y, assert_same, own_deep, own_network, saved_without
from tests.subjects import deep


def test_a_net_keeps_its_history_and_can_be_trained_further(tmp_path):
    model = deep(validation=0.34, loss="focal", class_weight="balanced").fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert len(found.net_.history) == 2
    assert found.net_.history[:, "train_loss"] == model.net_.history[:, "train_loss"]
    assert found.net_.history[-1, "valid_mean_iou"] == model.net_.history[-1, "valid_mean_iou"]
    assert not found.net_.module_.training
    assert_same(model.partial_fit(X, Y), found.partial_fit(X, Y))


def test_networks_of_refiners_are_not_replaced_by_the_network_of_the_user():
    network = BoundaryNetwork(3, 2, hidden=4)
    torch.nn.init.normal_(network.last.weight)
    found = restore(*describe(network), None, own_network, ())
    assert isinstance(found, BoundaryNetwork)
    assert found.dilations == network.dilations
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_a_factory_of_ones_own_is_given_again(tmp_path):
    model = own_deep(own_network).fit(X, Y)
    path = saved_without(model, tmp_path)
    with pytest.raises(
        TypeError, match=r"is a tests\.persistence\.models_made\.own_network.*network="
    ):
        load(path)
    assert_same(model, load(path, network=own_network))
    assert_same(model, load(path, network=own_network()))
    found = load(path, trusted=["tests.persistence.models_made.own_network"])
    assert_same(model, found)
    assert found.network is own_network
    with pytest.raises(ValueError, match="do not fit the network Conv2d"):
        load(path, network=lambda in_channels, n_classes: own_network(in_channels, 7))
    with pytest.raises(TypeError, match="network is a int; expected a torch.nn.Module"):
        load(path, network=3)


def test_a_lambda_is_given_again(tmp_path):
    model = own_deep(lambda in_channels, n_classes: own_network())
    found = load(saved_without(model.fit(X, Y), tmp_path), network=own_network)
    assert_same(model, found)


def test_a_module_of_ones_own_is_given_again(tmp_path):
    """The parameter ``network`` and the trained copy keep their different weights."""
    torch = pytest.importorskip("torch")
    module = own_network()
    module.bias.requires_grad_(False)
    model = own_deep(module).fit(X, Y)
    path = saved_without(model, tmp_path)
    with pytest.raises(TypeError, match=r"network is a torch.*\.Conv2d, which a file cannot hold"):
        load(path)
    with pytest.raises(TypeError, match=r"load\(path, network=\.\.\.\), a module like it\.$"):
        load(path, trusted=["torch.nn.modules.conv.Conv2d"])
    for given in (own_network(), own_network):
        found = load(path, network=given)
        assert_same(model, found)
        assert torch.equal(found.network.weight, module.weight)
        assert not torch.equal(found.network.weight, found.net_.module_.weight)
        assert not found.network.bias.requires_grad
        assert found.network.weight.requires_grad


def test_pretrained_segmenters(tmp_path):
    """Networks of this package are rebuilt, or filled into a given module or factory."""
    pytest.importorskip("torch")
    from hybridseg import PretrainedSegmenter
    from hybridseg.networks import UNet

    network = UNet(3, 3, width=4, depth=2)
    model = PretrainedSegmenter(network, [0, 1, 2])
    path = save(model, path_for(tmp_path))
    for found in (
        load(path),
        load(path, network=UNet(3, 3, width=4, depth=2)),
        load(path, network=lambda: UNet(3, 3, width=4, depth=2)),
        load(
            path,
            network=lambda in_channels, n_classes: UNet(in_channels, n_classes, width=4, depth=2),
        ),
        load(save(load(path), path_for(tmp_path))),
    ):
        assert_same(model, found)
    with pytest.raises(ValueError, match="do not fit the network UNet: the file has no down"):
        load(path, network=UNet)
    with pytest.raises(TypeError, match="network made a int; expected a torch.nn.Module"):
        load(path, network=lambda: 3)


def test_adapted_networks_come_back_whole(tmp_path):
    torch = pytest.importorskip("torch")
    from hybridseg import PretrainedSegmenter
    from hybridseg.networks import ESPNet, UNet, adapt

    adapted = adapt(ESPNet(3, 4), **ESPNet.inputs["camvid"])
    model = make_pipeline(PretrainedSegmenter(adapted, [0, 1, 2, -1]), DenseCRF(n_iter=2))
    found = load(save(model, path_for(tmp_path)))
    assert_same(model, found)
    assert torch.equal(found[0].network.mean, adapted.mean)
    trained = own_deep(adapt(UNet(3, 3, width=4, depth=1), multiple_of=4)).fit(X, Y)
    found = load(save(trained, path_for(tmp_path)))
    assert_same(trained, found)
    assert_same(clone(trained).fit(X, Y), clone(found).fit(X, Y))


def test_weights_of_other_precision_and_layout(tmp_path):
    torch = pytest.importorskip("torch")
    from hybridseg import PretrainedSegmenter

    module = own_network().double().to(memory_format=torch.channels_last)
    path = saved_without(PretrainedSegmenter(module, range(3)), tmp_path)
    found = load(path, network=own_network())
    assert found.network.weight.dtype == torch.float64
    assert found.network.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_device_that_is_not_here(tmp_path):
    path = save(deep().fit(X, Y), path_for(tmp_path))
    changed = rewritten(path, lambda m: m["networks"][0].update(device="cuda:99"))
    with pytest.warns(UserWarning, match="'cuda:99', which this computer does not have"):
        assert load(changed).net_.device == "cpu"


def test_networks_that_the_file_lacks(tmp_path):
    path = save(deep().fit(X, Y), path_for(tmp_path))
    whole = path.read_bytes()
    written(path, members(path) | {"networks/0.safetensors": b"no weights"})
    with pytest.raises(ValueError, match="the weights of a hybridseg.networks.unet.UNet .*broken"):
        load(path)
    path.write_bytes(whole)
    rewritten(path, lambda m: m["networks"][0].pop("history"))
    with pytest.raises(ValueError, match="tampered with: .* of a network, .*history"):
        load(path)
    path.write_bytes(whole)
    rewritten(path, lambda m: m["networks"].clear())
    with pytest.raises(ValueError, match="refers to a network 0 that it lacks"):
        load(path)


def test_descriptions_are_checked_by_name_and_type():
    pytest.importorskip("torch")
    from hybridseg.deep.stored import check_entry, describe

    entry, _ = describe(own_network())
    check_entry(entry)
    check_entry({"kind": "factory", "name": "x"})
    for name in ("name", "training", "frozen", "channels_last"):
        with pytest.raises(ValueError, match=f"tampered with: .* in which '{name}' is 3"):
            check_entry(entry | {name: 3})
    for wrong in (3, {}, {"kind": "else"}):
        with pytest.raises(ValueError, match="tampered with: it has a network of kind"):
            check_entry(wrong)


def test_shared_and_strided_weights_come_back():
    torch = pytest.importorskip("torch")
    from hybridseg.deep.stored import describe, restore

    def network():
        first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)

    module = network().eval()
    with torch.no_grad():
        module[0].weight.set_(torch.rand(6, 3).t()[:, ::2])
    entry, weights = describe(module)
    found = restore(json.loads(json.dumps(entry)), weights, None, network, ())
    assert not found.training
    assert found[0].weight is found[1].weight
    assert torch.equal(found[0].weight, module[0].weight)
