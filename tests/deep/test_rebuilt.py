"""Networks of this package are made again from data, and others are not taken for them."""

import json
import time

import pytest

from hybridseg import load, save
from tests.persistence.archives_made import (
    path_for,
)
from tests.persistence.models_made import X, Y, assert_same, own_deep, own_network, saved_without
from tests.subjects import deep


def test_every_network_can_be_described():
    """Save a network as data, and build an equal one from the data."""
    torch = pytest.importorskip("torch")
    from hybridseg.deep.rebuilt import describe_making, make
    from hybridseg.networks import NETWORKS

    for network in NETWORKS.values():
        with torch.device("meta"):
            module = network(in_channels=2, n_classes=3)
            again = make(json.loads(json.dumps(describe_making(module))))
        assert repr(again) == repr(module)


def test_networks_that_were_changed_are_given_again(tmp_path):
    """Such networks differ from what their arguments build."""
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    from hybridseg import PretrainedSegmenter
    from hybridseg.networks import UNet, adapt

    activated, dropping, hooked = (UNet(3, 3, width=4, depth=1) for _ in range(3))
    activated.down[0][2] = torch.nn.SiLU()
    dropping.dropout.p = 0.5
    hooked.register_forward_hook(lambda module, images, logits: -logits)
    theirs = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    for network in (activated, dropping, hooked, adapt(theirs), adapt(activated)):
        model = PretrainedSegmenter(network, range(3))
        path = saved_without(model, tmp_path)
        with pytest.raises(TypeError, match="which a file cannot hold"):
            load(path)
        assert_same(model, load(path, network=network))


def test_pretrained_encoders_are_not_read_again(tmp_path):
    """The file has the trained weights, so the pretrained weights are not needed."""
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    source = tmp_path / "encoder.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), source)
    options = {"encoder": "mobilenet_v2", "weights": source}
    model = own_deep("liteseg", options).fit(X, Y)
    path = save(model, path_for(tmp_path))
    source.unlink()
    assert_same(model, load(path))


def own_pretrained(in_channels, n_classes, *, encoder_weights):
    if encoder_weights is not None:
        encoder_weights.read_bytes()
    return own_network(in_channels, n_classes)


def test_encoder_weights_are_not_read_again(tmp_path):
    source = tmp_path / "encoder.pth"
    source.write_bytes(b"weights")
    model = own_deep(own_pretrained, {"encoder_weights": source}).fit(X, Y)
    path = saved_without(model, tmp_path)
    source.unlink()
    assert_same(model, load(path, network=own_pretrained))


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 10**6), ("width", -1), ("depth", 10**6), ("depth", 30), ("x", 1), ("width", "x")],
)
def test_networks_take_no_more_than_their_file(tmp_path, name, value):
    model = deep(max_epochs=1).fit(X, Y)
    options = {"width": 4, "depth": 2}
    model.set_params(network_options=options | {name: value})
    path = save(model, path_for(tmp_path))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"model\.hybridseg.*do not fit the network"):
        load(path)
    assert time.monotonic() - start < 20


def test_a_state_fits_the_network_that_it_is_of():
    pytest.importorskip("torch")
    from hybridseg.deep.rebuilt import difference, made_within
    from hybridseg.networks import UNet

    small, wide = UNet(3, 3, width=4, depth=1), UNet(3, 5, width=4, depth=1)
    assert difference(small, small.state_dict()) == ""
    told = difference(wide, small.state_dict())
    name = next(k for k, v in small.state_dict().items() if v.shape != wide.state_dict()[k].shape)
    assert f"{name} is (5, " in told
    assert "and (3, " in told
    part = dict(list(small.state_dict().items())[1:])
    assert difference(small, part).startswith("the file has no ")
    assert difference(small.down, small.state_dict()).startswith("it has no ")
    made = made_within(lambda: UNet(3, 3, width=4, depth=1), small.state_dict())
    assert repr(made) == repr(small)
    with pytest.raises(ValueError, match=r"is \(5, .* in it and \(3, .* in the file"):
        made_within(lambda: UNet(3, 5, width=4, depth=1), small.state_dict())


def test_descriptions_of_other_things_are_refused():
    pytest.importorskip("torch")
    from hybridseg.deep.rebuilt import make

    for name, arguments in (("os.system", {}), ("hybridseg.networks.unet.UNet", {"depth": "x"})):
        described = {"name": name, "arguments": arguments, "statistics": {}}
        with pytest.raises(ValueError, match="its network cannot be built"):
            make(described)


def test_factories_get_the_numbers_that_they_take():
    pytest.importorskip("torch")
    from hybridseg.deep.rebuilt import called_as_it_can_be

    numbers = {"in_channels": 3, "n_classes": 5}
    both = called_as_it_can_be(lambda in_channels, n_classes: (in_channels, n_classes), 3, 5)
    assert both == tuple(numbers.values())
    assert called_as_it_can_be(lambda **options: options, 3, 5) == numbers
    assert called_as_it_can_be(lambda: "none", 3, 5) == "none"
    assert called_as_it_can_be(lambda width=4: width, 3, 5) == 4
