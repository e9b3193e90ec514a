import copy
import functools
import importlib
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from hybridseg import DeepSegmenter, Scene
from hybridseg.networks import UNet
from tests.deep.subjects import SMALL, quick, same, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def blocks(shape, n_labels=3, channels=3, seed=0):
    """A noisy image of rectangles and its truth; color tells the label."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-shape[0] // 8), -(-shape[1] // 8)
    coarse = rng.permutation(np.arange(rows * columns) % n_labels).reshape(rows, columns)
    labels = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]]
    palette = np.random.default_rng(99).integers(40, 215, size=(n_labels, channels))
    image = palette[labels] + rng.normal(0, 8, (*shape, channels))
    return np.clip(image, 0, 255).astype(np.uint8), labels


IMAGES, LABELS = (
    list(each) for each in zip(*(blocks((24, 33), seed=s) for s in (0, 1, 2)), strict=True)
)


def test_learns_two_images_by_heart():
    pairs = [blocks((40, 48), seed=3), blocks((32, 56), seed=4)]
    X, y = [image for image, _ in pairs], [labels for _, labels in pairs]
    model = DeepSegmenter(
        network_options={"width": 8, "depth": 2},
        max_epochs=8,
        crops_per_image=16,
        crop_size=32,
        batch_size=4,
        lr=1e-2,
        random_state=0,
    ).fit(X, y)
    assert model.score(X, y) > 0.95
    losses = model.net_.history[:, "train_loss"]
    assert losses[-1] < losses[0] / 3


def test_learns_from_scribbles_on_one_image():
    image, labels = blocks((40, 48), seed=3)
    scribbles = np.full_like(labels, 255)
    scribbles[4::8] = labels[4::8]
    scribbles[:, ::2] = 255
    model = quick(
        network_options={"width": 8, "depth": 1},
        max_epochs=12,
        crops_per_image=16,
        crop_size=24,
        lr=1e-2,
        batch_size=4,
        ignore_label=255,
    ).fit([image], [scribbles])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    assert model.score([image], [labels]) > 0.9


def test_values_of_the_labels_come_back():
    model = quick().fit(IMAGES, [np.array([7, 40, 300])[labels] for labels in LABELS])
    np.testing.assert_array_equal(model.classes_, [7, 40, 300])
    assert set(np.unique(model.predict(IMAGES[:1])[0])) <= {7, 40, 300}


@pytest.mark.parametrize("channels", [1, 7])
def test_channels(channels):
    image, labels = blocks((16, 21), channels=channels)
    proba = quick().fit([image], [labels]).predict_proba([image])[0]
    assert proba.shape == (16, 21, 3)
    np.testing.assert_allclose(proba.sum(axis=-1), 1, atol=1e-5)


def test_gray_images_without_a_channel_axis():
    image, labels = blocks((16, 21), channels=1)
    model = quick().fit([image[..., 0]], [labels])
    assert model.mean_.shape == (1,)
    assert model.predict([image[..., 0]])[0].shape == (16, 21)


def test_differing_sizes_and_images_smaller_than_the_crop():
    pairs = [blocks(shape, n_labels=2, seed=1) for shape in ((9, 30), (26, 11), (16, 16))]
    X, y = [image for image, _ in pairs], [labels for _, labels in pairs]
    model = quick(crop_size=20, augment="dihedral").fit(X, y)
    assert [found.shape for found in model.predict(X)] == [labels.shape for labels in y]


def test_smallest_training():
    image = np.array([[0, 255]], np.uint8)
    model = quick(batch_size=1, crops_per_image=1, crop_size=1).fit([image], [np.array([[0, 1]])])
    assert model.predict([image, image[:, :1]])[1].shape == (1, 1)
    assert np.isfinite(model.transform([image])[0].unary).all()


def test_constant_images():
    model = quick().fit([np.full((12, 12, 3), 9, np.uint8)], [np.eye(12, dtype=int)])
    np.testing.assert_array_equal(model.std_, 1)
    assert np.isfinite(model.predict_proba([np.full((5, 5, 3), 9, np.uint8)])[0]).all()


def test_standardizes_by_the_training_images():
    model = quick(max_epochs=1).fit(IMAGES, LABELS)
    colors = np.concatenate([image.reshape(-1, 3) for image in IMAGES]).astype(float)
    np.testing.assert_allclose(model.mean_, colors.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.std_, colors.std(axis=0), rtol=1e-4)


def test_invalid_pixels_neither_teach_nor_count():
    image, labels = blocks((16, 20))
    image = image / 255.0
    valid = np.ones((16, 20), bool)
    valid[:, 15:] = False
    image[~valid] = np.nan
    scene = Scene(image, valid=valid)
    model = quick().fit([scene], [labels])
    np.testing.assert_allclose(model.mean_, 255 * image[valid].mean(axis=0), rtol=1e-5)
    found = model.predict([scene])[0]
    np.testing.assert_array_equal(found == -1, ~valid)


def test_images_without_labels_are_passed_over():
    void = [np.full_like(LABELS[0], -1), *LABELS[1:]]
    model = quick().fit(IMAGES, void)
    assert np.isfinite(model.net_.history[:, "train_loss"]).all()


def test_equal_seeds_give_equal_networks():
    first, second, other = (quick(random_state=seed).fit(IMAGES, LABELS) for seed in (0, 0, 1))
    costs = [model.transform(IMAGES[:1])[0].unary for model in (first, second, other)]
    np.testing.assert_array_equal(costs[0], costs[1])
    assert not np.array_equal(costs[0], costs[2])


def test_global_generators_are_left_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for seed in (None, 0):
        quick(max_epochs=1, random_state=seed).fit(IMAGES, LABELS).predict(IMAGES)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_inputs_may_be_read_only_and_stay_as_they_are():
    image, labels = IMAGES[0].copy(), LABELS[0].copy()
    image.setflags(write=False)
    labels.setflags(write=False)
    quick(augment="dihedral").fit([image], [labels]).predict([image])
    np.testing.assert_array_equal(image, IMAGES[0])


def test_pickles_copies_and_clones():
    model = quick(callbacks=[EarlyStopping(monitor="train_loss", patience=9)]).fit(IMAGES, LABELS)
    expected = model.transform(IMAGES[:1])[0].unary
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.transform(IMAGES[:1])[0].unary, expected)
        assert len(twin.net_.history) == 2
    fresh = clone(model)
    assert not hasattr(fresh, "net_")
    np.testing.assert_array_equal(
        fresh.fit(IMAGES, LABELS).transform(IMAGES[:1])[0].unary, expected
    )


def test_fitting_again_leaves_earlier_scenes_alone():
    model = quick().fit(IMAGES, LABELS)
    scene, expected = model.transform(IMAGES[:1])[0], model.transform(IMAGES[:1])[0].unary
    model.set_params(random_state=5).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(scene.unary, expected)


def test_a_fit_that_fails_leaves_the_old_state():
    model = quick().fit(IMAGES, LABELS)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"X\[1\] has 1 channels but X\[0\] has 3"):
        model.fit([IMAGES[0], IMAGES[1][..., 0]], LABELS[:2])
    assert vars(model) == before


def test_grid_search_and_cross_validation():
    search = GridSearchCV(quick(), {"max_epochs": [1, 2]}, cv=3, error_score="raise")
    search.fit(IMAGES, LABELS)
    assert len(search.best_estimator_.net_.history) == search.best_params_["max_epochs"]
    found = cross_val_predict(quick(), IMAGES, LABELS, cv=3)
    assert [each.shape for each in found] == [labels.shape for labels in LABELS]


def test_a_pipeline_with_memory(tmp_path):
    frozen = FrozenEstimator(quick().fit(IMAGES, LABELS))
    expected = frozen.predict(IMAGES[:1])[0]
    for step in (frozen, quick()):
        pipeline = make_pipeline(step, "passthrough", memory=str(tmp_path)).fit(IMAGES, LABELS)
        np.testing.assert_array_equal(pipeline.transform(IMAGES[:1])[0].prediction, expected)


class Recorder(Callback):
    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


def test_callbacks_reach_skorch_as_copies():
    recorder = Recorder()
    model = quick(callbacks=[("recorder", recorder)], max_epochs=3).fit(IMAGES, LABELS)
    assert dict(model.net_.callbacks_)["recorder"].epochs == 3
    assert recorder.epochs == 0


class Impatient(Callback):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupt_keeps_what_was_learned():
    model = quick(callbacks=[Impatient()]).fit(IMAGES, LABELS)
    assert len(model.net_.history) == 1
    assert model.predict(IMAGES[:1])[0].shape == LABELS[0].shape


def test_few_images_are_cropped_more_often():
    model = quick(crops_per_image=None, max_epochs=1).fit(IMAGES, LABELS)
    assert len(model.net_.history[0, "batches"]) == 3 * 22 // 2


def test_verbose_prints_a_line_an_epoch(capsys):
    quick(verbose=0).fit(IMAGES, LABELS)
    assert capsys.readouterr().out == ""
    quick(verbose=1).fit(IMAGES, LABELS)
    assert "train_loss" in capsys.readouterr().out


def test_another_optimizer():
    momentum = functools.partial(torch.optim.SGD, momentum=0.9)
    model = quick(optimizer=momentum, weight_decay=0.5).fit(IMAGES, LABELS)
    group = model.net_.optimizer_.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.5)


def test_a_module_is_tuned_as_a_copy():
    module = UNet(3, 3, width=4, depth=1)
    before = copy.deepcopy(module.state_dict())
    model = quick(network=module, network_options=None).fit(IMAGES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    after = model.net_.module_.state_dict()
    assert not torch.equal(after["head.weight"], before["head.weight"])
    clone(model).fit(IMAGES, LABELS)


def linear(in_channels, n_classes, kernel=1):
    return nn.Conv2d(in_channels, n_classes, kernel, padding=kernel // 2)


@pytest.mark.parametrize(
    ("network", "options"), [(linear, {"kernel": 3}), (linear, None), (UNet, SMALL)]
)
def test_factories_and_classes(network, options):
    model = quick(network=network, network_options=options).fit(IMAGES, LABELS)
    assert model.predict(IMAGES)[0].shape == LABELS[0].shape


class InADict(nn.Module):
    def __init__(self, in_channels, n_classes):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, n_classes, 1)

    def forward(self, images):
        return {"out": self.layer(images), "aux": None}


def test_torchvisions_dict_of_outputs():
    model = quick(network=InADict, network_options=None).fit(IMAGES, LABELS)
    assert model.predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Conv2d(3, 2, 1), r"the network has 2 outputs, but y has 3 classes"),
        (nn.Conv2d(3, 3, 2, stride=2), r"output is \(2, 3, 8, 8\); expected .*interpolate"),
        (nn.LSTM(16, 3), "LSTM: Expected input"),
    ],
)
def test_networks_with_other_outputs_are_refused(module, match):
    with pytest.raises(ValueError, match=match):
        quick(network=module, network_options=None).fit(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"network": "unnet"}, ValueError, "network='unnet'; expected one of .*'unet'"),
        ({"network": 3}, ValueError, "'network' parameter"),
        ({"network": dict, "network_options": None}, TypeError, "made a dict; expected a torch"),
        ({"network": nn.Conv2d(3, 3, 1)}, ValueError, "network is a module that exists already"),
        ({"device": "abacus"}, ValueError, "device='abacus' cannot be used here .* expected"),
        ({"lr": 1e30, "max_epochs": 4}, ValueError, "training diverged: the loss is .* lower lr"),
        ({"augment": "sideways"}, ValueError, "'augment' parameter"),
        ({"crop_size": 0}, ValueError, "'crop_size' parameter"),
    ],
)
def test_mistakes_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        quick(**wrong).fit(IMAGES, LABELS)


@pytest.mark.parametrize("missing", ["torch", "skorch"])
def test_without_torch_the_error_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "hybridseg.deep.segmenter")
    with pytest.raises(ImportError, match=r"pip install hybridseg\[deep\]"):
        importlib.import_module("hybridseg.deep.segmenter")


def test_warm_start_and_partial_fit_go_on():
    model = quick(max_epochs=4, lr=1e-2).fit(IMAGES, LABELS)
    before, mean = weights(model), model.mean_
    model.set_params(lr=1e-12, weight_decay=0.0, encoder_lr_factor=0)
    for train in (model.partial_fit, model.set_params(warm_start=True).fit):
        train([255 - image for image in IMAGES], LABELS)
        assert len(model.net_.history) == 4
        torch.testing.assert_close(weights(model)["head.weight"], before["head.weight"])
        np.testing.assert_array_equal(model.mean_, mean)
    assert quick().partial_fit(IMAGES, LABELS).net_.module_ is not None
    fresh = quick(warm_start=True).fit(IMAGES, LABELS)
    assert same(weights(fresh), weights(quick().fit(IMAGES, LABELS)))


def test_partial_fit_on_new_classes():
    model = quick().fit(IMAGES, LABELS)
    model.partial_fit(IMAGES, [np.array([2, 7, 1])[each] for each in LABELS])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2, 7])
    assert model.predict_proba(IMAGES)[0].shape[-1] == 4
    model.partial_fit(IMAGES, LABELS, classes=[0, 1, 2])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    with pytest.raises(ValueError, match=r"y holds the classes \[0, 1, 2\], but classes=\[0, 1\]"):
        model.partial_fit(IMAGES, LABELS, classes=[0, 1])
    with pytest.raises(ValueError, match="1 channels, but the network was trained on 2 axes and 3"):
        model.partial_fit([image[..., 0] for image in IMAGES], LABELS)
    module = quick(network=UNet(3, 3, **SMALL), network_options=None).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="module with a fixed number of outputs"):
        module.partial_fit(IMAGES, [each + 1 for each in LABELS])
