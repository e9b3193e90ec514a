import numpy as np
import pytest
from sklearn.base import clone

from hybridseg.base import Scene
from hybridseg.inference.cuts.graph_cut import GraphCut, graph_cut
from hybridseg.pairwise import grid_weights
from hybridseg.scene.costs import RegionCosts


def scene(seed=0, shape=(9, 12), classes=(0, 1, 2), **known):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    logits = rng.normal(size=(*shape, len(classes)))
    return Scene.from_logits(image, logits, classes, **known)


def test_the_estimator_equals_the_function():
    given = scene(classes=(10, 4, 7))
    model = GraphCut(weight=2.0, connectivity=2, contrast=30.0)
    weights = grid_weights(given.image, weight=2.0, connectivity=2, contrast=30.0)
    expected = np.array([10, 4, 7])[graph_cut(given.unary, weights).labels]
    np.testing.assert_array_equal(model.predict([given])[0], expected)
    refined = model.transform([given])[0]
    np.testing.assert_array_equal(refined.labels, expected)
    np.testing.assert_array_equal(refined.unary, given.unary)
    assert not hasattr(model, "predict_proba")


def test_the_estimator_solves_volumes_with_spacing():
    given = scene(shape=(4, 5, 6), spacing=(4.0, 1.0, 1.0))
    weights = grid_weights(given.image, weight=1.0, spacing=(4.0, 1.0, 1.0))
    found = GraphCut(weight=1.0).predict([given])[0]
    np.testing.assert_array_equal(found, graph_cut(given.unary, weights).labels)


def test_seeds_of_the_scene_are_obeyed():
    seeds = np.full((9, 12), -1)
    seeds[2:4, 3:5], seeds[7, 7] = 30, 20
    found = GraphCut(weight=5.0).predict([scene(classes=(20, 30), seeds=seeds)])[0]
    np.testing.assert_array_equal(found[seeds >= 0], seeds[seeds >= 0])
    with pytest.raises(ValueError, match=r"seeds holds the label 30; expected one of the classes"):
        GraphCut().predict([scene(classes=(20, 31), seeds=seeds)])


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_pixels_that_are_not_valid_influence_no_others(on):
    given = scene()
    valid = np.ones((9, 12), bool)
    valid[:, 8:] = False
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    spoilt_image = np.where(valid[..., np.newaxis], given.image, 255 - given.image)
    spoilt_costs = np.where(valid[..., np.newaxis], given.unary, -1000)
    spoilt = given.replace(image=spoilt_image, unary=spoilt_costs, valid=valid, regions=regions)
    small = Scene(given.image[:, :8], given.unary[:, :8], classes=given.classes, spatial_ndim=2)
    found = GraphCut(weight=2.0, on=on).predict([spoilt])[0]
    np.testing.assert_array_equal(found[:, :8], GraphCut(weight=2.0).predict([small])[0])
    assert (found[:, 8:] == -1).all()


def test_regions_of_one_pixel_are_pixels():
    given = scene()
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    expected = GraphCut(weight=2.0).predict([given])[0]
    found = GraphCut(weight=2.0, on="regions").predict([given.replace(regions=regions)])[0]
    np.testing.assert_array_equal(found, expected)


def test_regions_keep_their_boundaries_and_obey_seeds():
    regions = (np.arange(9)[:, None] // 3 * 4 + np.arange(12) // 3).astype(np.int32)
    costs = RegionCosts(regions, np.random.default_rng(1).random((12, 3), np.float32))
    seeds = np.full((9, 12), -1)
    seeds[4, 4] = 2
    given = scene(seeds=seeds).replace(unary=costs)
    found = GraphCut(weight=0.5, on="regions").predict([given])[0]
    for number in range(12):
        assert len(np.unique(found[regions == number])) == 1
    assert (found[regions == regions[4, 4]] == 2).all()


def test_pixels_outside_all_regions_take_their_cheapest_label():
    regions = np.zeros((9, 12), np.int32)
    regions[:, 6:], regions[0] = 5, -1
    given = scene().replace(regions=regions)
    found = GraphCut(on="regions").predict([given])[0]
    np.testing.assert_array_equal(found[0], given.unary[0].argmin(axis=-1))
    assert len(np.unique(found[1:, :6])) == 1


def test_regions_are_asked_for():
    with pytest.raises(ValueError, match="on='regions' needs superpixels"):
        GraphCut(on="regions").predict([scene()])


def test_both_solvers_of_the_estimator_agree():
    pytest.importorskip("maxflow")
    ours, theirs = (GraphCut(weight=2.0, solver=solver) for solver in ("numba", "pymaxflow"))
    np.testing.assert_array_equal(ours.predict([scene()])[0], theirs.predict([scene()])[0])


@pytest.mark.parametrize(
    "change", [{"weight": -1}, {"on": "lines"}, {"solver": "x"}, {"contrast": 0.0}, {"moves": "x"}]
)
def test_bad_parameters_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"'{name}' parameter of GraphCut"):
        clone(GraphCut(**change)).predict([scene()])


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_nothing_valid_or_no_region_leaves_the_cheapest_labels(on):
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    given = scene(regions=regions, valid=np.zeros((9, 12), bool))
    assert (GraphCut(on=on).predict([given])[0] == -1).all()
    given = scene(regions=np.full((9, 12), -1, np.int32))
    found = GraphCut(on="regions").predict([given])[0]
    np.testing.assert_array_equal(found, given.unary.argmin(axis=-1))
