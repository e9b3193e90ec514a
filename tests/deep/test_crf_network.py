"""A CRF in a DeepSegmenter: trained with the network, kept by copies, files and more training."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn

from hybridseg import CRFLayer, DeepSegmenter, DenseCRF, Scene, load, save
from hybridseg.deep.crf_network import CRFNetwork
from tests.deep.subjects import IMAGES, LABELS, SMALL, quick, same, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")

OPTIONS = {
    "spatial_weight": 1.0,
    "spatial_width": 1.5,
    "bilateral_weight": 1.0,
    "bilateral_width": 8.0,
    "bilateral_color": 20.0,
    "n_iter": 3,
    "n_iter_eval": 4,
}


def with_crf(**changes):
    return quick(**({"crf": OPTIONS} | changes)).fit(IMAGES, LABELS)


def network_of(output=None, **options):
    """A network around a convolution whose output is what ``output`` makes of its logits."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, images):
            logits = self.head(images)
            return logits if output is None else output(logits)

    return CRFNetwork.around(Network(), OPTIONS, 3, 2, **options)


def images_of(n=2):
    return torch.randn(n, 3, 8, 9, generator=torch.Generator().manual_seed(0))


def test_predictions_are_those_of_network_and_dense_crf():
    model = with_crf()
    layer = model.net_.module_.crf
    unrefined = DeepSegmenter(**model.get_params()).set_params(crf=False)
    unrefined.__dict__.update({k: v for k, v in vars(model).items() if k.endswith("_")})
    unrefined.net_ = clone_of_net(model.net_)
    crf = DenseCRF(**layer.to_params(), n_iter=4)
    for scene, proba in zip(unrefined.transform(IMAGES), model.predict_proba(IMAGES), strict=True):
        assert np.allclose(crf.predict_proba([scene])[0], proba, atol=1e-4)


def clone_of_net(net):
    """A net with the network alone."""
    found = copy.copy(net)
    found.module_ = net.module_.unrefined
    return found


def test_network_and_crf_learn():
    start = CRFLayer(3, **OPTIONS)
    model = with_crf(crf_start=0.0)
    layer = model.net_.module_.crf
    moved = {
        name
        for name, value in layer.named_parameters()
        if not torch.equal(value.cpu(), start.state_dict()[name])
    }
    assert moved == {"log_unary_factor", "log_weight_factors", "compatibility_offset"}
    assert not same(weights(model), weights(with_crf(crf_start=0.5)))


@pytest.mark.parametrize("start", [0.0, 0.5, 0.9])
def test_the_crf_joins_after_its_first_epochs(start):
    network = network_of(start=start).train()
    refined = []
    for epoch in range(10):
        network.begin_epoch(epoch, 10)
        images = images_of()
        refined.append(not torch.equal(network(images), network.unrefined(images)))
    assert refined == [epoch >= start * 10 for epoch in range(10)]
    network.begin_epoch(0, 10)
    assert not torch.equal(network.eval()(images), network.unrefined(images))


def test_the_crf_does_not_move_before():
    model = with_crf(max_epochs=2, crf_start=0.99)
    assert not any(bool(p.any()) for p in model.net_.module_.crf.parameters() if p.requires_grad)


def test_the_crf_sees_colors():
    network = network_of().eval()
    mean, std = np.array([100, 120, 90], np.float32), np.array([30, 20, 50], np.float32)
    network.standardized_by(mean, std)
    images = images_of()
    colors = (images * torch.from_numpy(std).view(3, 1, 1)) + torch.from_numpy(mean).view(3, 1, 1)
    layer = CRFLayer(2, **OPTIONS, image_range=(0, 255)).eval()
    expected = layer(network.unrefined(images), colors.clamp(0, 255))
    assert torch.allclose(network(images), expected, atol=1e-5)


def test_other_outputs_stay():
    images, kept = images_of(), torch.ones(2, 2, 4, 4)
    plain = network_of()
    expected = plain(images)
    for output, chosen in (
        (lambda logits: {"out": logits, "aux": kept}, ("out", "aux")),
        (lambda logits: (logits, kept), (0, 1)),
    ):
        network = network_of(output)
        network.load_state_dict(plain.state_dict())
        found = network(images)
        assert torch.equal(found[chosen[0]], expected)
        assert found[chosen[1]] is kept


def test_one_channel_for_two_classes():
    one = network_of(lambda logits: logits[:, :1])
    assert one(images_of()).shape == (2, 2, 8, 9)


def test_auxiliary_heads_are_trained():
    network = network_of()
    network.network.with_auxiliary = lambda images: {"out": network.unrefined(images), "aux": 3}
    found = network.with_auxiliary(images_of())
    assert found["aux"] == 3
    assert torch.equal(found["out"], network(images_of()))


@pytest.mark.parametrize(
    "crf", [True, OPTIONS, CRFLayer(3, **OPTIONS)], ids=["bool", "dict", "layer"]
)
def test_a_file_brings_the_crf_back(tmp_path, crf):
    model = with_crf(crf=crf)
    found = load(save(model, tmp_path / "model.hybridseg"))
    assert same(weights(model), weights(found))
    before, after = (each.predict_proba(IMAGES) for each in (model, found))
    assert all(map(np.array_equal, before, after))
    assert all(
        map(np.array_equal, model.predict(IMAGES), clone(found).fit(IMAGES, LABELS).predict(IMAGES))
    )


def test_a_file_with_a_compatibility_and_a_network_of_ones_own(tmp_path):
    compatibility = 1.5 - 1.5 * np.eye(3)
    network = nn.Conv2d(3, 3, 1)
    layer = CRFLayer(3, compatibility=compatibility)
    model = with_crf(network=network, network_options=None, crf=layer)
    with pytest.warns(UserWarning, match="pass the network"):
        path = save(model, tmp_path / "model.hybridseg")
    found = load(path, network=nn.Conv2d(3, 3, 1))
    assert np.array_equal(found.crf.to_params()["compatibility"], compatibility)
    assert same(weights(model), weights(found))
    before, after = (each.predict_proba(IMAGES) for each in (model, found))
    assert all(np.allclose(*pair, atol=1e-5) for pair in zip(before, after, strict=True))


def test_more_training_continues_the_crf():
    model = with_crf(crf_start=0.0)
    before = model.net_.module_.crf.to_params()
    model.set_params(lr=1e-9).partial_fit(IMAGES, LABELS)
    after = model.net_.module_.crf.to_params()
    assert np.isclose(before["bilateral_weight"], after["bilateral_weight"], rtol=1e-5)
    assert before["bilateral_weight"] != OPTIONS["bilateral_weight"]


def test_new_classes_get_a_new_crf():
    model = with_crf()
    model.partial_fit(IMAGES, [np.where(labels == 2, 7, labels) for labels in LABELS])
    assert model.net_.module_.crf.n_classes == 4
    assert set(model.classes_) == {0, 1, 2, 7}


def test_a_crf_can_be_added_and_removed():
    model = quick().fit(IMAGES, LABELS)
    model.set_params(crf=OPTIONS, warm_start=True).fit(IMAGES, LABELS)
    assert isinstance(model.net_.module_, CRFNetwork)
    model.set_params(crf=False).fit(IMAGES, LABELS)
    assert not isinstance(model.net_.module_, CRFNetwork)


def test_the_given_layer_does_not_change():
    layer = CRFLayer(3, **OPTIONS)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    model = with_crf(crf=layer, crf_start=0.0)
    assert same(before, layer.state_dict())
    assert layer.scale.limits == "dtype"
    assert model.crf is layer


@pytest.mark.parametrize(
    "changes",
    [
        {"tile": 16, "tta": "mirror"},
        {"precision": "bfloat16"},
        {"accumulate": 2, "validation": 0.34},
        {"encoder_lr_factor": 0.1},
    ],
    ids=["tiles", "bfloat16", "validation", "encoder"],
)
def test_it_goes_with_other_settings(changes):
    model = with_crf(**changes)
    proba = model.predict_proba(IMAGES)
    assert all(np.allclose(each.sum(axis=-1), 1, atol=1e-4) for each in proba)
    assert isinstance(model.net_.module_, CRFNetwork)


def test_volumes():
    rng = np.random.default_rng(0)
    volumes = [rng.integers(256, size=(8, 9, 10), dtype=np.uint8) for _ in range(2)]
    labels = [(volume > 128).astype(int) for volume in volumes]
    options = {"network_options": SMALL, "max_epochs": 1, "crop_size": 8, "augment": None}
    model = DeepSegmenter("unet3d", crf=OPTIONS, crf_start=0.0, **options).fit(volumes, labels)
    assert model.predict(volumes)[0].shape == (8, 9, 10)


def test_a_checkpoint_resumes_with_the_crf(tmp_path):
    class Interrupt(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                raise RuntimeError("interrupted")

    whole = with_crf(max_epochs=4)
    with pytest.raises(RuntimeError, match="interrupted"):
        with_crf(max_epochs=4, checkpoint=str(tmp_path), callbacks=[Interrupt()])
    resumed = with_crf(max_epochs=4, checkpoint=str(tmp_path))
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize(
    ("crf", "error", "message"),
    [
        (CRFLayer(5), ValueError, "crf is for 5 classes, but y has 3"),
        ({"spatial_weight": -1.0}, ValueError, "spatial_weight=-1"),
        ({"weight": 1.0}, TypeError, "weight"),
    ],
)
def test_wrong_layers_are_refused(crf, error, message):
    with pytest.raises(error, match=message):
        with_crf(crf=crf)


def test_scenes_of_any_intensity_range_give_the_same_colors():
    model = with_crf()
    image = IMAGES[0]
    scaled = Scene(image=image / 255.0)
    assert np.allclose(model.predict_proba([image])[0], model.predict_proba([scaled])[0], atol=1e-4)
