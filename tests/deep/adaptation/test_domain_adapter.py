"""A trained network, adapted to images of another kind without labels."""

import copy
import pickle

import imageio.v3 as iio
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")
from torch import nn  # noqa: E402

import hybridseg  # noqa: E402
from hybridseg import (  # noqa: E402
    DenseCRF,
    DomainAdapter,
    PixelClassifier,
    PretrainedSegmenter,
    Scene,
)
from hybridseg.deep import BatchStatistics, Entropy, SelfTraining  # noqa: E402
from hybridseg.metrics import mean_iou  # noqa: E402
from tests.deep.subjects import (  # noqa: E402
    changed,
    darkened,
    fogged,
    group_norms,
    quick,
    ragged,
    state,
    two_norms,
)
from tests.subjects import halves  # noqa: E402
from tests.test_estimators import DATA_FREE  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_tiles_and_bfloat16(trained, scenes):
    images = [darkened(image) for image in scenes.images[:3]]
    whole = DomainAdapter(trained).fit(images)
    for params in ({"tile": 40}, {"precision": "bfloat16"}):
        model = copy.copy(trained).set_params(**params)
        found = DomainAdapter(model).fit(images)
        agreement = np.mean(np.array(found.predict(images)[0] == whole.predict(images)[0]))
        assert agreement > 0.8


# -- what it is for -------------------------------------------------------------------------------

METHODS = {
    "default": {},
    "batch_statistics": {"method": "batch_statistics"},
    "entropy": {"method": "entropy"},
    "self_training": {"method": ("batch_statistics", "self_training"), "rounds": 1, "epochs": 1},
    "with a CRF": {
        "method": ["batch_statistics", "entropy", "self_training"],
        "refiner": DenseCRF(n_iter=2),
        "rounds": 2,
        "epochs": 1,
    },
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shift", [darkened, fogged])
def test_scores_rise_by_far_on_shifted_images(trained, brief, scenes, shift, name):
    shown = [shift(image) for image in scenes.images]
    adapted = DomainAdapter(brief, random_state=0, **METHODS[name]).fit(shown[:6])
    truth = scenes.labels[6:]
    gains = [
        mean_iou([t], adapted.predict([x])) - mean_iou([t], trained.predict([x]))
        for x, t in zip(shown[6:], truth, strict=True)
    ]
    assert np.mean(gains) > 0.15
    assert np.mean(gains) > 3 * np.std(gains, ddof=1) / np.sqrt(len(gains))
    steps = [row["method"] for row in adapted.history_]
    methods = METHODS[name].get("method", "batch_statistics")
    listed = [methods] if isinstance(methods, str) else methods
    rounds = METHODS[name].get("rounds", 1)
    repeats = [m for m in listed for _ in range(rounds if m == "self_training" else 1)]
    assert steps == ["source", *repeats]
    assert all(row["kept"] for row in adapted.history_)
    entropies = [row["mean_entropy"] for row in adapted.history_]
    assert entropies[1] < entropies[0]


def test_images_that_are_not_shifted_are_left_alone(trained, scenes):
    adapted = DomainAdapter(trained).fit(scenes.images[:6])
    source, step = adapted.history_
    assert not step["kept"]
    assert step["mean_entropy"] > source["mean_entropy"]
    assert not changed(state(trained), state(adapted.segmenter_))
    forced = DomainAdapter(trained, guard=False).fit(scenes.images[:6])
    assert forced.history_[-1]["kept"]
    assert changed(state(trained), state(forced.segmenter_))


def test_the_given_segmenter_stays_as_it_is(brief, scenes):
    images = [darkened(image) for image in scenes.images[:3]]
    before, params = state(brief), brief.get_params()
    modes = [part.training for part in brief.net_.module_.modules()]
    rows, generator = len(brief.net_.history), torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    DomainAdapter(
        FrozenEstimator(brief),
        ("batch_statistics", "entropy", "self_training"),
        rounds=1,
        epochs=1,
        random_state=0,
    ).fit(images)
    assert not changed(before, state(brief))
    same = [brief.get_params()[name] is value for name, value in params.items()]
    assert all(same)
    assert [part.training for part in brief.net_.module_.modules()] == modes
    assert all(parameter.requires_grad for parameter in brief.net_.module_.parameters())
    assert len(brief.net_.history) == rows
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_equal_seeds_give_equal_networks(brief, scenes):
    images = [darkened(image) for image in scenes.images[:3]]

    def adapted(seed):
        method = ("entropy", "self_training")
        model = DomainAdapter(brief, method, rounds=1, epochs=1, random_state=seed)
        return state(model.fit(images).segmenter_)

    assert not changed(adapted(0), adapted(0))
    assert changed(adapted(0), adapted(1))


def test_a_collapse_is_undone(rng):
    model = PretrainedSegmenter(group_norms(), range(3), n_channels=2)
    images = ragged(rng, ((9, 12), (7, 8)))
    adapter = DomainAdapter(model, ["entropy"] * 2, entropy_epochs=50, entropy_lr=0.5)
    with pytest.warns(UserWarning, match=r"'entropy' collapsed in round \d+: \d+% .* undone"):
        adapter.fit(images)
    *before, last = adapter.history_
    assert not last["kept"]
    assert all(row["kept"] for row in before)
    assert len(before) <= 50  # the second time was left out
    assert last["information"] < before[0]["information"] / 2
    kept = [image for found in adapter.predict_proba(images) for image in found.reshape(-1, 3)]
    entropies = [-(p * np.log(np.maximum(p, 1e-30))).sum() for p in kept]
    assert np.mean(entropies) == pytest.approx(before[-1]["mean_entropy"], rel=1e-4)
    unguarded = DomainAdapter(
        model, "entropy", entropy_epochs=last["round"], entropy_lr=0.5, guard=False
    )
    assert unguarded.fit(images).history_[-1]["kept"]


# -- as an estimator ------------------------------------------------------------------------------


@pytest.mark.parametrize("check", DATA_FREE, ids=lambda check: check.__name__)
def test_scikit_learn_rules(check, trained):
    check("DomainAdapter", DomainAdapter(trained))


def test_tags(trained):
    tags = get_tags(DomainAdapter(trained))
    assert tags.estimator_type == "segmenter"
    assert not tags.target_tags.required


@pytest.mark.parametrize("wrap", [lambda model: model, FrozenEstimator])
def test_a_clone_keeps_the_trained_segmenter(trained, scenes, wrap):
    images = [darkened(image) for image in scenes.images[:3]]
    model = DomainAdapter(wrap(trained), refiner=DenseCRF(n_iter=1), random_state=0).fit(images)
    other = clone(model)
    assert other.segmenter is model.segmenter
    assert other.refiner is not model.refiner
    assert not hasattr(other, "segmenter_")
    with pytest.raises(NotFittedError, match="not fitted"):
        other.predict(images)
    again = clone(make_pipeline(model, DenseCRF())).fit(images)
    assert not changed(state(model.segmenter_), state(again[0].segmenter_))


def test_in_a_pipeline(trained, scenes):
    images = [fogged(image) for image in scenes.images]
    model = make_pipeline(DomainAdapter(trained), DenseCRF(n_iter=2)).fit(images[:6])
    assert model.score(images[6:], scenes.labels[6:]) > 0.5
    proba = model[0].predict_proba(images[6:7])[0]
    assert np.array_equal(model[0].predict(images[6:7])[0], proba.argmax(axis=-1))
    assert np.array_equal(model[0].classes_, trained.classes_)
    found = model[0].transform(images[6:7])[0]
    np.testing.assert_allclose(found.proba, proba, atol=1e-6)


@pytest.mark.parametrize("how", ["pickle", "file"])
def test_it_can_be_kept(trained, scenes, tmp_path, how):
    images = [darkened(image) for image in scenes.images[:3]]
    model = DomainAdapter(FrozenEstimator(trained), random_state=0).fit(images)
    if how == "pickle":
        found = pickle.loads(pickle.dumps(model))
    else:
        found = hybridseg.load(hybridseg.save(model, tmp_path / "model.hybridseg"))
    for a, b in zip(found.predict_proba(images), model.predict_proba(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not changed(state(trained), state(found.segmenter.estimator))
    np.testing.assert_equal(found.history_, model.history_)
    found.fit(images)
    assert not changed(state(model.segmenter_), state(found.segmenter_))


def test_a_pretrained_one_can_be_kept(rng, tmp_path):
    images = ragged(rng, ((9, 12), (7, 8)))
    model = DomainAdapter(PretrainedSegmenter(two_norms(), range(3), n_channels=2), guard=False)
    with pytest.warns(UserWarning, match="cannot hold the network"):
        path = hybridseg.save(model.fit(images), tmp_path / "model.hybridseg")
    found = hybridseg.load(path, network=two_norms())
    for a, b in zip(found.predict_proba(images), model.predict_proba(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not changed(state(model.segmenter), state(found.segmenter))


def test_volumes(rng):
    images, labels = halves(((10, 12, 14), (8, 10, 12)), channels=1)
    model = quick(network="unet3d", network_options={"width": 2, "depth": 1}, crop_size=8)
    model.fit(images, labels)
    method = ("batch_statistics", "entropy", "self_training")
    adapter = DomainAdapter(model, method, rounds=1, epochs=1, guard=False, random_state=0)
    dark = [image // 3 for image in images]
    assert [found.shape for found in adapter.fit(dark).predict(dark)] == [
        (10, 12, 14),
        (8, 10, 12),
    ]
    assert adapter.spatial_ndim_ == 3
    assert [row["method"] for row in adapter.history_] == ["source", *method]


def test_paths_scenes_and_ragged_sizes(trained, brief, tmp_path, rng):
    images = [rng.integers(0, 90, (*shape, 3), dtype=np.uint8) for shape in ((30, 41), (25, 37))]
    for i, image in enumerate(images):
        iio.imwrite(tmp_path / f"{i}.png", image)
    valid = np.ones((30, 41), bool)
    valid[:, -5:] = False
    expected = DomainAdapter(trained, guard=False).fit(images)
    found = DomainAdapter(trained, guard=False).fit([tmp_path / "0.png", str(tmp_path / "1.png")])
    assert not changed(state(expected.segmenter_), state(found.segmenter_))
    masked = DomainAdapter(
        brief, ("entropy", "self_training"), rounds=1, epochs=1, guard=False, random_state=0
    ).fit([Scene(images[0], valid=valid), images[1]])
    assert (masked.predict([Scene(images[0], valid=valid)])[0][:, -5:] == -1).all()


# -- methods as objects --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "params", "objects"),
    [
        ("batch_statistics", {"prior": 2.0}, BatchStatistics(prior=2.0)),
        (
            ["batch_statistics", "entropy"],
            {"entropy_epochs": 2, "entropy_lr": 1e-3, "prior": 1.0},
            [BatchStatistics(1.0), Entropy(epochs=2, lr=1e-3, prior=1.0)],
        ),
        (
            ("batch_statistics", "self_training"),
            {"rounds": 1, "epochs": 1, "lr": 1e-4, "portion": 0.3, "refiner": DenseCRF(n_iter=1)},
            (
                "batch_statistics",
                SelfTraining(1, epochs=1, lr=1e-4, portion=0.3, refiner=DenseCRF(n_iter=1)),
            ),
        ),
    ],
)
def test_objects_do_what_names_and_parameters_do(brief, scenes, names, params, objects):
    images = [darkened(image) for image in scenes.images[:3]]
    by_name = DomainAdapter(brief, names, random_state=0, **params).fit(images)
    by_object = DomainAdapter(brief, objects, random_state=0).fit(images)
    assert not changed(state(by_name.segmenter_), state(by_object.segmenter_))
    np.testing.assert_equal(by_object.history_, by_name.history_)


def test_a_method_may_be_applied_twice_with_other_settings(trained, scenes):
    images = [darkened(image) for image in scenes.images[:3]]
    methods = [BatchStatistics(), Entropy(lr=1e-3), Entropy(epochs=2, lr=1e-4)]
    model = DomainAdapter(trained, methods, guard=False, random_state=0).fit(images)
    found = [(row["method"], row["round"]) for row in model.history_[1:]]
    assert found == [("batch_statistics", 1), ("entropy", 1), ("entropy", 1), ("entropy", 2)]


def test_adapters_with_objects_are_cloned_and_kept(brief, scenes, tmp_path):
    images = [darkened(image) for image in scenes.images[:2]]
    methods = [BatchStatistics(1.0), SelfTraining(1, epochs=1, refiner=DenseCRF(n_iter=1))]
    model = DomainAdapter(FrozenEstimator(brief), methods, random_state=0).fit(images)
    other = clone(model)
    assert other.method[0] == methods[0]
    assert other.method[1].portion == methods[1].portion
    assert other.method[1].refiner is not methods[1].refiner
    found = hybridseg.load(hybridseg.save(model, tmp_path / "model.hybridseg"))
    assert repr(found.method) == repr(methods)
    for a, b in zip(found.predict_proba(images), model.predict_proba(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not changed(state(model.segmenter_), state(found.fit(images).segmenter_))


# -- errors ---------------------------------------------------------------------------------------


def test_segmenters_that_cannot_be_adapted(trained, scenes):
    images = scenes.images[:1]
    for untrained in (clone(trained), FrozenEstimator(clone(trained))):
        with pytest.raises(NotFittedError, match=r"DeepSegmenter that is not fitted.*Fit it on"):
            DomainAdapter(untrained).fit(images)
    with pytest.raises(TypeError, match="is a PixelClassifier; expected a trained DeepSegmenter"):
        DomainAdapter(PixelClassifier()).fit(images)
    with pytest.raises(TypeError, match=r"is a Pipeline; .*adapt the first step"):
        DomainAdapter(make_pipeline(trained, DenseCRF())).fit(images)


def test_methods_that_do_not_suit_the_network(trained, rng):
    images = ragged(rng, ((9, 12),))
    plain = PretrainedSegmenter(nn.Conv2d(2, 3, 1), range(3), n_channels=2)
    with pytest.raises(ValueError, match="Conv2d has no batch normalization that keeps statistics"):
        DomainAdapter(plain).fit(images)
    with pytest.raises(ValueError, match="Conv2d has no normalization with scales and shifts"):
        DomainAdapter(plain, "entropy").fit(images)
    groups = PretrainedSegmenter(group_norms(), range(3), n_channels=2)
    with pytest.raises(ValueError, match="Sequential has no batch normalization"):
        DomainAdapter(groups).fit(images)
    with pytest.raises(ValueError, match="method='self_training' needs a DeepSegmenter"):
        DomainAdapter(groups, "self_training").fit(images)
    for method in ("adabn", (), ("entropy", "tent"), [BatchStatistics(), BatchStatistics]):
        with pytest.raises(ValueError, match=r"method=.*; expected one of \['batch_statistics'"):
            DomainAdapter(trained, method).fit(images)
    with pytest.raises(ValueError, match="has an estimator of its own"):
        DomainAdapter(trained, "self_training", refiner=DenseCRF(PixelClassifier())).fit(images)


def test_a_failed_fit_changes_nothing(trained, scenes):
    images = [darkened(image) for image in scenes.images[:3]]
    model = DomainAdapter(trained).fit(images)
    before, segmenter = state(model.segmenter_), model.segmenter_
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.fit([images[0], np.full((20, 26, 3), np.nan)])
    with pytest.raises(ValueError, match="has 1 channels, but DeepSegmenter was fitted on"):
        model.fit([image[..., :1] for image in images])
    with pytest.raises(ValueError, match="X is empty"):
        model.fit([])
    with pytest.raises(ValueError, match="looks like one image; wrap it"):
        model.fit(images[0])
    with pytest.raises(ValueError, match="no valid pixel"):
        model.fit([Scene(images[0], valid=np.zeros((48, 64), bool))])
    with pytest.raises(ValueError, match="'portion' parameter"):
        model.set_params(portion=0.0).fit(images)
    assert model.segmenter_ is segmenter
    assert not changed(before, state(model.segmenter_))
