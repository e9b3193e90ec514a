"""Predictions, in any number of threads, change neither the model nor the process."""

import copy
import gc

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from hybridseg import CrossFit, GraphCut, PixelClassifier, Scene
from hybridseg.features import PixelFeatures
from hybridseg.scene.deferred import Deferred, ValueCache
from hybridseg.unary.classifier_proba import classifier_proba
from tests.subjects import REFINERS, SEGMENTERS, deep, forest, halves, pixels, superpixels
from tests.threads import at_once, contents, surroundings

SHAPES = [(16, 20), (18, 12)]
IMAGES, LABELS = halves(SHAPES)


def predictions(model, images, labels):
    """All results of an estimator for images, as a flat list of arrays."""
    found = [*model.predict(images), np.array(model.score(images, labels))]
    for scene in model.transform(images):
        found += [scene.unary, scene.prediction]
    if hasattr(model, "predict_proba"):
        found += model.predict_proba(images)
    return found


def check_threads(model, images=IMAGES, labels=LABELS):
    """Check that eight threads predict like one, and change neither model nor process."""
    before, around = contents(model), surroundings()
    expected = predictions(model, images, labels)
    assert contents(model) == before
    assert surroundings() == around

    pairs = list(zip(images, labels, strict=True))
    alone = [predictions(model, [image], [truth]) for image, truth in pairs]

    def work(number):
        """Predict all images; odd threads at once, even ones one by one in different orders."""
        if number % 2:
            return [predictions(model, images, labels)], [expected]
        order = np.roll(np.arange(len(images)), number // 2)
        return [predictions(model, *zip(pairs[i])) for i in order], [alone[i] for i in order]

    for found, wanted in at_once(work):
        for theirs, ours in zip(found, wanted, strict=True):
            for one, other in zip(theirs, ours, strict=True):
                np.testing.assert_array_equal(one, other)
    assert contents(model) == before
    assert surroundings() == around


@pytest.mark.parametrize("name", sorted(set(SEGMENTERS) - {"DeepSegmenter"}))  # see below
def test_segmenters(name):
    check_threads(SEGMENTERS[name]().fit(IMAGES, LABELS))


@pytest.mark.parametrize("name", sorted(REFINERS))
def test_refiners_and_pipelines(name):
    check_threads(make_pipeline(superpixels(), REFINERS[name]()).fit(IMAGES, LABELS))


@pytest.mark.parametrize("name", sorted(REFINERS))
def test_refiners_of_scenes_that_threads_share(name):
    """Threads may compute the costs of a Scene several times, but the costs are equal."""
    scenes = pixels().fit(IMAGES, LABELS).transform(IMAGES)
    check_threads(REFINERS[name](), scenes)


def test_out_of_fold_scenes_that_threads_share():
    for images, labels in ((IMAGES, LABELS), (IMAGES[:1], LABELS[:1])):
        scenes = CrossFit(pixels(), cv=2).fit_transform(images, labels)
        expected = [scene.unary.copy() for scene in scenes]
        again = CrossFit(pixels(), cv=2).fit_transform(images, labels)
        for found in at_once(lambda _, again=again: [scene.unary for scene in again]):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_any_classifier():
    """scikit-learn changes the filters of warnings in several threads while it predicts."""
    for classifier in (KNeighborsClassifier(3), RandomForestClassifier(9, n_jobs=2)):
        features = PixelFeatures(sigmas=(1.0,))
        check_threads(PixelClassifier(classifier, features=features).fit(IMAGES, LABELS))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_forests_predict_like_scikit_learn(rng, n_jobs):
    rows = rng.normal(size=(200, 5)).astype(np.float32)
    targets = (rows.sum(1) * 2).astype(int)
    for kind in (RandomForestClassifier, ExtraTreesClassifier):
        model = kind(20, min_samples_leaf=3, random_state=0).fit(rows, targets)
        expected = model.predict_proba(rows)
        found = classifier_proba(model.set_params(n_jobs=n_jobs), rows)
        np.testing.assert_array_equal(found, expected)
        with pytest.raises(ValueError, match="X has 4 features, but"):
            classifier_proba(model, rows[:, :4])


# The cache of deferred values


def test_deferred_values_are_those_of_their_scenes():
    """No thread gets another Scene's value, while many threads create, read and drop values."""
    image = np.zeros((4, 4), np.uint8)
    cache = ValueCache(budget=6 * 4 * 4 * 8)

    def ask(number):
        wrong = 0
        for step in range(100):
            value = 1000 * number + step
            deferred = Deferred(lambda _, value=value: np.full((4, 4), value), Scene(image))
            held = [deferred]
            held.append(held)  # only the garbage collector frees it
            wrong += sum(bool((cache.of_deferred(deferred) != value).any()) for _ in range(2))
            if step % 50 == 0:
                gc.collect()
        return wrong

    assert sum(at_once(ask)) == 0
    gc.collect()
    assert not cache._held
    assert cache._size == 0


def test_threads_that_ask_at_once_are_handed_one_array():
    """The cache holds no value twice."""
    deferred = Deferred(lambda _: np.arange(3), Scene(np.zeros((4, 4), np.uint8)))
    cache = ValueCache(budget=1000)
    first = cache.of_deferred(deferred)
    assert all(found is first for found in at_once(lambda _: cache.of_deferred(deferred)))
    assert cache._size == first.nbytes


# Networks

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hybridseg import DeepFeatures, DomainAdapter, PretrainedSegmenter  # noqa: E402
from hybridseg.deep import features as deep_features  # noqa: E402
from hybridseg.networks import UNet, adapt  # noqa: E402
from hybridseg.unary import Views  # noqa: E402


def trained_elsewhere():
    """A network with batch statistics and dropout, in training mode as after construction."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        network = nn.Sequential(UNet(3, 8, width=4, depth=1), nn.BatchNorm2d(8), nn.Dropout(0.3))
        network.append(nn.Conv2d(8, 3, 1))
        network(torch.randn(4, 3, 16, 16))
    return adapt(network, multiple_of=4, mean=100.0, std=50.0).train()


def quickly_trained():
    options = {"width": 4, "depth": 1, "dropout": 0.5}
    quick = {"max_epochs": 1, "crops_per_image": 2, "crop_size": 8}
    return deep(network_options=options, **quick).fit(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({}, 1),
        ({}, 2),
        ({"tta": Views(scales=(0.5, 1.0)), "tile": 12}, 1),
        ({"precision": "bfloat16"}, 2),
        ({"device": "cpu"}, 1),
    ],
)
def test_networks_from_elsewhere(options, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_threads(PretrainedSegmenter(trained_elsewhere(), range(3), **options))
    finally:
        torch.set_num_threads(before)


def test_a_network_from_elsewhere_before_a_refiner():
    check_threads(make_pipeline(PretrainedSegmenter(trained_elsewhere(), range(3)), GraphCut()))


@pytest.mark.parametrize("options", [{"tta": "mirror", "tile": 12}, {"n_jobs": 1}])
def test_trained_networks(options):
    check_threads(quickly_trained().set_params(**options))


@pytest.mark.parametrize("method", ["batch_statistics", ["batch_statistics", "entropy"]])
def test_adapted_networks(method):
    pytest.importorskip("skorch")
    source = PretrainedSegmenter(trained_elsewhere(), range(3))
    before = contents(source)
    check_threads(DomainAdapter(source, method, guard=False, random_state=0).fit(IMAGES))
    assert contents(source) == before


def test_networks_may_be_adapted_while_others_predict():
    pytest.importorskip("skorch")
    source = PretrainedSegmenter(trained_elsewhere(), range(3))
    before, expected = contents(source), source.predict_proba(IMAGES)
    adapted = DomainAdapter(source).fit(IMAGES).predict_proba(IMAGES)

    def work(number):
        model = DomainAdapter(source).fit(IMAGES) if number % 2 else source
        return model.predict_proba(IMAGES)

    for number, found in enumerate(at_once(work)):
        for one, other in zip(found, adapted if number % 2 else expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert contents(source) == before


def test_dropout_that_is_sampled():
    model = quickly_trained().set_params(random_state=np.random.RandomState(0))
    before, around = contents(model), surroundings()
    expected = model.predict_uncertainty(IMAGES, 3)
    for found in at_once(lambda _: model.predict_uncertainty(IMAGES, 3)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.entropy, other.entropy)
    assert contents(model) == before
    assert surroundings() == around


def test_features_of_a_network():
    """Threads get equal features even if the network must be loaded first."""
    features = DeepFeatures("mobilenet_v3_small", weights=None, strides=(2, 8))
    model = PixelClassifier(forest(), features=features).fit(IMAGES, LABELS)
    expected, around = model.predict_proba(IMAGES[:1])[0], surroundings()
    deep_features._frozen_encoder.cache_clear()
    for found in at_once(lambda _: model.predict_proba(IMAGES[:1])[0]):
        np.testing.assert_array_equal(found, expected)
    assert surroundings() == around
    check_threads(model, IMAGES[:2], LABELS[:2])


def test_a_mode_that_changes_after_transform_changes_nothing():
    network = trained_elsewhere().eval()
    model = PretrainedSegmenter(network, range(3))
    expected = model.predict_proba(IMAGES)
    scenes = model.transform(IMAGES)
    network.train()
    before = copy.deepcopy(network.state_dict())
    for scene, proba in zip(scenes, expected, strict=True):
        np.testing.assert_array_equal(scene.proba, proba)
    assert all(part.training for part in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_trained_network_predicts_in_evaluation_mode_whatever_its_own():
    model = quickly_trained()
    expected = model.predict_proba(IMAGES)
    model.net_.module_.train()
    before = contents(model)
    for one, other in zip(model.predict_proba(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert contents(model) == before


def test_a_network_in_training_mode_predicts_with_its_current_weights():
    """The copy for predictions shares the weights of the network."""
    network = trained_elsewhere()
    model = PretrainedSegmenter(network, range(3))
    before = model.predict_proba(IMAGES[:1])[0]
    scene = model.transform(IMAGES[:1])[0]
    with torch.no_grad():
        network.network[-1].bias += torch.tensor([1.0, 0.0, 0.0])
    for after in (scene.proba, model.predict_proba(IMAGES[:1])[0]):
        assert (after[..., 0] > before[..., 0]).all()


def test_hooks_of_a_network_run():
    network, seen = trained_elsewhere(), []

    class Keeper:
        def keep(self, module, inputs, output):
            seen.append(output.shape)

    network.network[0].register_forward_hook(Keeper().keep)
    PretrainedSegmenter(network, range(3)).predict(IMAGES[:1])
    assert len(seen) == 1


def test_a_network_that_cannot_be_copied_asks_for_its_mode():
    class Locked(nn.Conv2d):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    network = Locked(3, 3, 1)
    with pytest.raises(TypeError, match=r"no copies.*call network.eval\(\) before"):
        PretrainedSegmenter(network, range(3)).predict(IMAGES)
    assert PretrainedSegmenter(network.eval(), range(3)).predict(IMAGES)[0].shape == SHAPES[0]
