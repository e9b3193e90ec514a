"""A model that was saved and loaded predicts the same bits; a file never runs code."""

import io
import json
import os
import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

import hybridseg
from hybridseg import DenseCRF, GraphCut, PixelClassifier, Scene, load, save
from hybridseg.features import PixelFeatures
from tests.persistence.archives_made import (
    members,
    path_for,
    rewritten,
    written,
)
from tests.subjects import REFINERS, SEGMENTERS, deep, halves, pixels, superpixels

X, Y = halves()


def assert_same(one, other, images=X):
    for a, b in zip(one.predict(images), other.predict(images), strict=True):
        np.testing.assert_array_equal(a, b)
    if hasattr(one, "predict_proba"):
        for a, b in zip(one.predict_proba(images), other.predict_proba(images), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_predicts_the_same_bits(tmp_path, name):
    model = SEGMENTERS[name]().fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert type(found) is type(model)
    assert_same(model, found)
    assert clone(found).fit(X, Y).score(X, Y) == pytest.approx(clone(model).fit(X, Y).score(X, Y))
    assert os.listdir(tmp_path) == ["model.hybridseg"]


@pytest.mark.parametrize("name", REFINERS)
def test_refiners_that_learn_nothing(tmp_path, name, rng):
    scenes = [Scene.from_logits(image, rng.normal(size=(*image.shape[:2], 3))) for image in X]
    found = load(save(REFINERS[name](), path_for(tmp_path)))
    assert_same(REFINERS[name](), found, scenes)


COMPOSED = {
    "pipeline": lambda: make_pipeline(superpixels(), DenseCRF(), GraphCut()),
    "search": lambda: GridSearchCV(
        make_pipeline(pixels(), DenseCRF()),
        {"densecrf__bilateral_color": [5.0, 20.0]},
        cv=KFold(3),
    ),
    "histograms": lambda: PixelClassifier(
        HistGradientBoostingClassifier(max_iter=5), features=PixelFeatures(sigmas=(1.0,))
    ),
    "boosting": lambda: PixelClassifier(
        GradientBoostingClassifier(n_estimators=3), features=PixelFeatures(sigmas=(1.0,))
    ),
    "deep pipeline": lambda: make_pipeline(deep(), DenseCRF(n_iter=2)),
    "deep search": lambda: GridSearchCV(
        make_pipeline(deep(), GraphCut()), {"graphcut__weight": [1.0, 5.0]}, cv=KFold(3)
    ),
    "deep refiner": lambda: DenseCRF(
        own_deep(from_torch("UNet", "hybridseg.networks"), {"width": 4})
    ),
}


def from_torch(name, module):
    return getattr(pytest.importorskip(module), name)


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(tmp_path, name):
    model = COMPOSED[name]().fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert_same(model, found)
    if hasattr(model, "best_estimator_"):
        assert_same(model.best_estimator_, found.best_estimator_)
        assert found.best_params_ == model.best_params_
        np.testing.assert_array_equal(
            found.cv_results_["mean_test_score"], model.cv_results_["mean_test_score"]
        )


def test_unfitted_models_keep_their_parameters(tmp_path):
    model = make_pipeline(pixels(ignore_label=255), DenseCRF(n_iter=3))
    found = load(save(model, path_for(tmp_path)))
    assert repr(found) == repr(model)
    assert_same(clone(found).fit(X, Y), clone(model).fit(X, Y))


def test_saving_leaves_the_model_alone(tmp_path):
    model = make_pipeline(deep(), DenseCRF(n_iter=2)).fit(X, Y)
    net, module = model[0].net_, model[0].net_.module_
    before = model.predict_proba(X)
    save(model, path_for(tmp_path))
    assert model[0].net_ is net
    assert net.module_ is module
    for a, b in zip(before, model.predict_proba(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_the_parts_share_stays_shared(tmp_path):
    inner = FrozenEstimator(pixels().fit(X, Y))
    found = load(save(make_pipeline(DenseCRF(inner), GraphCut()), path_for(tmp_path)))
    assert_same(inner.estimator, found[0].estimator.estimator)


def test_a_net_keeps_its_history_and_can_be_trained_further(tmp_path):
    model = deep(validation=0.34, loss="focal", class_weight="balanced").fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert len(found.net_.history) == 2
    assert found.net_.history[:, "train_loss"] == model.net_.history[:, "train_loss"]
    assert found.net_.history[-1, "valid_mean_iou"] == model.net_.history[-1, "valid_mean_iou"]
    assert not found.net_.module_.training
    assert_same(model.partial_fit(X, Y), found.partial_fit(X, Y))


def test_parameters_of_a_deep_segmenter_that_are_objects(tmp_path):
    torch = pytest.importorskip("torch")
    from functools import partial

    from skorch.callbacks import EarlyStopping

    from hybridseg.losses import CrossEntropy, LovaszSoftmax

    model = deep(
        loss=CrossEntropy([1, 2, 3]) + 0.5 * LovaszSoftmax(),
        optimizer=partial(torch.optim.SGD, momentum=0.5),
        callbacks=[EarlyStopping(monitor="train_loss")],
        lr=0.01,
    ).fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert_same(model, found)
    assert found.loss.weights == (1.0, 0.5)
    assert found.loss.losses[0].class_weight == (1.0, 2.0, 3.0)
    assert found.optimizer.keywords == {"momentum": 0.5}
    assert_same(clone(model).fit(X, Y), clone(found).fit(X, Y))


def saved_without(model, directory, what="a file cannot hold the network"):
    """Save a model of which the file lacks something; saving says so."""
    with pytest.warns(UserWarning, match=what):
        return save(model, path_for(directory))


def own_deep(network, options=None):
    return deep(max_epochs=1).set_params(network=network, network_options=options)


def own_network(in_channels=3, n_classes=3):
    from torch import nn

    return nn.Conv2d(in_channels, n_classes, 3, padding=1)


def test_a_factory_of_ones_own_is_given_again(tmp_path):
    model = own_deep(own_network).fit(X, Y)
    path = saved_without(model, tmp_path)
    with pytest.raises(
        TypeError, match=r"is a tests\.persistence\.test_model_file\.own_network.*network="
    ):
        load(path)
    assert_same(model, load(path, network=own_network))
    assert_same(model, load(path, network=own_network()))
    found = load(path, trusted=["tests.persistence.test_model_file.own_network"])
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
    """The parameter keeps its weights, and the trained copy its own."""
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
    """Networks of this package come back whole, or from a module or a factory that is given."""
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


def test_every_network_can_be_described():
    """As data, from which one like it is made."""
    torch = pytest.importorskip("torch")
    from hybridseg.deep.rebuilt import describe_making, make
    from hybridseg.networks import NETWORKS

    for network in NETWORKS.values():
        with torch.device("meta"):
            module = network(in_channels=2, n_classes=3)
            again = make(json.loads(json.dumps(describe_making(module))))
        assert repr(again) == repr(module)


def test_networks_that_were_changed_are_given_again(tmp_path):
    """They are not as their arguments say."""
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


def test_weights_of_other_precision_and_layout(tmp_path):
    torch = pytest.importorskip("torch")
    from hybridseg import PretrainedSegmenter

    module = own_network().double().to(memory_format=torch.channels_last)
    path = saved_without(PretrainedSegmenter(module, range(3)), tmp_path)
    found = load(path, network=own_network())
    assert found.network.weight.dtype == torch.float64
    assert found.network.weight.is_contiguous(memory_format=torch.channels_last)


def test_pretrained_encoders_are_not_read_again(tmp_path):
    """The weights of the file are the trained ones; the encoder's own need not be there."""
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


def test_a_device_that_is_not_here(tmp_path):
    path = save(deep().fit(X, Y), path_for(tmp_path))
    changed = rewritten(path, lambda m: m["networks"][0].update(device="cuda:99"))
    with pytest.warns(UserWarning, match="'cuda:99', which is not here; it is on the CPU now"):
        assert load(changed).net_.device == "cpu"


def test_versions_are_recorded_and_a_mismatch_warns(saved):
    manifest = json.loads(members(saved)["manifest.json"])
    assert manifest["versions"]["hybridseg"] == hybridseg.__version__
    rewritten(saved, lambda m: m["versions"].update({"scikit-learn": "1.2.3", "torch": "0.1"}))
    with pytest.warns(UserWarning, match=r"saved with scikit-learn 1\.2\.3 \(here"):
        load(saved)
    rewritten(saved, lambda m: m.update({"hybridseg model": 99}))
    with pytest.raises(ValueError, match="has the format 99; this hybridseg reads 1"):
        load(saved)


def test_broken_files(saved, tmp_path):
    content = saved.read_bytes()
    for broken in (content[: len(content) // 2], content[:-30], b"", b"not a zip"):
        saved.write_bytes(broken)
        with pytest.raises(ValueError, match="is no model that hybridseg.save wrote, or is broken"):
            load(saved)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    saved.write_bytes(flipped)
    with pytest.raises(ValueError, match="broken"):
        load(saved)
    with pytest.raises(ValueError, match="is no model that hybridseg.save wrote"):
        load(written(saved, {"something.txt": b"else"}))
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickles_never_run(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    saved.write_bytes(bomb)
    with pytest.raises(ValueError, match="is no model that hybridseg.save wrote"):
        load(saved)
    save(pixels().fit(X, Y), saved)
    contents = members(saved)
    with pytest.raises(ValueError, match="estimators are broken"):
        load(written(saved, contents | {"model.skops": bomb}))
    inner = members(io.BytesIO(contents["model.skops"]))
    array = next(name for name in inner if name.endswith(".npy"))
    pickled = io.BytesIO()
    np.save(pickled, np.array([Bomb()]), allow_pickle=True)
    for evil in (bomb, pickled.getvalue()):
        model = written(io.BytesIO(), inner | {array: evil}).getvalue()
        with pytest.raises(ValueError, match="cannot be read .*or has been tampered with"):
            load(written(saved, contents | {"model.skops": model}))
    assert not (tmp_path / "exploded").exists()


def test_trees_that_lead_astray_are_refused(tmp_path):
    for name in ("pixels", "histograms", "boosting"):
        model = (COMPOSED.get(name) or pixels)().fit(X, Y)
        classifier = model.classifier_
        path = save(model, path_for(tmp_path))
        if name == "histograms":
            nodes = classifier._predictors[0][0].nodes
            nodes["left"][0] = 10**6
        else:
            tree = np.ravel(classifier.estimators_)[0].tree_
            state = tree.__getstate__()
            state["nodes"]["left_child"][0] = 10**6
            tree.__setstate__(state)
        with pytest.raises(ValueError, match="holds a broken decision tree"):
            load(save(model, path))
    forest = pixels().fit(X, Y)
    forest.classifier_.n_features_in_ = 1
    with pytest.raises(ValueError, match="holds a broken decision tree"):
        load(save(forest, path))


def test_networks_that_the_file_lacks(tmp_path):
    path = save(deep().fit(X, Y), path_for(tmp_path))
    whole = path.read_bytes()
    written(path, members(path) | {"networks/0.safetensors": b"no weights"})
    with pytest.raises(ValueError, match="the weights of a hybridseg.networks.unet.UNet .*broken"):
        load(path)
    path.write_bytes(whole)
    rewritten(path, lambda m: m["networks"][0].pop("history"))
    with pytest.raises(ValueError, match="networks in .*tampered with .*history"):
        load(path)
    path.write_bytes(whole)
    rewritten(path, lambda m: m["networks"].clear())
    with pytest.raises(ValueError, match="refers to a network 0 that it lacks"):
        load(path)


def doubled(colors, labels, rng):
    return 2 * colors, labels


def test_functions_of_ones_own_are_trusted_by_name(tmp_path):
    name = "tests.persistence.test_model_file.doubled"
    path = saved_without(deep(augment=doubled), tmp_path, f"holds {name}")
    with pytest.raises(TypeError, match=f"holds {name}, which"):
        load(path)
    assert load(path, trusted=[name]).augment is doubled
    with pytest.raises(TypeError, match="trusted='x' is text; expected a list"):
        load(path, trusted="x")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="model is a list; expected an estimator"):
        save([1], path_for(tmp_path))
    with pytest.raises(TypeError, match="model holds what cannot be written without pickle"):
        save(pixels().set_params(classifier=(i for i in "ab")), path_for(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_search_over_networks_says_what_to_save(tmp_path):
    grid = {"network": [own_network(), own_network()]}
    search = GridSearchCV(own_deep(own_network()), grid, cv=KFold(2)).fit(X, Y)
    with pytest.raises(TypeError, match="a GridSearchCV whose results hold .* best_estimator_"):
        save(search, path_for(tmp_path))
    found = load(saved_without(search.best_estimator_, tmp_path), network=own_network())
    assert_same(search, found)


def test_without_skops_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    for call in (lambda: load(saved), lambda: save(DenseCRF(), saved)):
        with pytest.raises(ImportError, match="saving and loading models needs skops: pip install"):
            call()


def test_a_failed_save_leaves_the_file_before(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division"):
        save(DenseCRF(), saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1
