"""The general refiner, and the energy that every refiner returns."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import hybridseg
from hybridseg import CRF, DenseCRF, GraphCut, GridCRF, Scene
from hybridseg.inference import graph_cut, grid_mean_field, mean_field, solve_cuts, solve_mean_field
from hybridseg.pairwise import (
    BilateralKernel,
    EdgeTerm,
    Energy,
    GaussianKernel,
    GridTerm,
    RegionTerm,
    energy,
    grid_weights,
)
from hybridseg.scene.costs import RegionCosts
from tests.inference.test_restraint import noisy
from tests.subjects import halves, pixels


@pytest.fixture
def scene():
    return noisy((24, 30), n_labels=3, spacing=(2.0, 1.0))[0]


def with_regions(scene, side=4):
    rows, columns = (np.arange(n) // side for n in scene.shape)
    return scene.replace(regions=(rows[:, None] * (columns.max() + 1) + columns).astype(np.int32))


def test_dense_kernels_give_what_dense_crf_gives(scene):
    kernels = [GaussianKernel(2.0, 1.5), BilateralKernel(4.0, 9.0, 20.0)]
    dense = DenseCRF(
        spatial_weight=2.0,
        spatial_width=1.5,
        bilateral_weight=4.0,
        bilateral_width=9.0,
        bilateral_color=20.0,
    )
    found, expected = (m.predict_proba([scene])[0] for m in (CRF(kernels), dense))
    np.testing.assert_array_equal(found, expected)


def test_grid_terms_give_what_the_presets_give(scene):
    terms = [GridTerm(3.0, connectivity=2)]
    found = CRF(terms).predict_proba([scene])[0]
    expected = GridCRF(weight=3.0, connectivity=2).predict_proba([scene])[0]
    np.testing.assert_array_equal(found, expected)
    cut = CRF(terms, solver="cuts").predict([scene])[0]
    np.testing.assert_array_equal(cut, GraphCut(weight=3.0, connectivity=2).predict([scene])[0])


@pytest.mark.parametrize("solver", ["mean_field", "cuts"])
def test_region_terms_give_what_the_presets_give(scene, solver):
    known = with_regions(scene)
    crf = CRF([RegionTerm(2.0)], on="regions", solver=solver)
    preset = {"mean_field": GridCRF, "cuts": GraphCut}[solver](on="regions", weight=2.0)
    np.testing.assert_array_equal(crf.predict([known])[0], preset.predict([known])[0])
    if solver == "mean_field":
        assert isinstance(crf.transform([known])[0].region_costs, RegionCosts)


def test_mixed_terms_beat_the_start_and_clean_up(scene):
    model = CRF([GridTerm(1.0), BilateralKernel(3.0, 8.0, 30.0)], n_iter=20)
    labels = model.predict([scene])[0]
    judge = model.energy(scene)
    assert judge.energy(labels) < judge.energy(scene.prediction)


def test_label_costs_leave_fewer_labels():
    scene, _ = noisy((24, 30), n_labels=2)
    proba = np.concatenate([scene.proba * 0.98, np.full((24, 30, 1), 0.02)], axis=-1)
    proba[3:5, 4:6] = [0.2, 0.2, 0.6]
    third = Scene.from_proba(scene.image, proba, classes=[5, 6, 9])
    terms = [GridTerm(0.2)]
    for costs, present in ((None, True), ([0.0, 0.0, 30.0], False)):
        found = CRF(terms, solver="cuts", label_costs=costs).predict([third])[0]
        assert bool((found == 9).any()) == present


@pytest.mark.parametrize("on", ["pixels", "regions"])
@pytest.mark.parametrize("solver", ["mean_field", "cuts"])
def test_seeds_and_invalid_pixels(scene, solver, on):
    seeds = np.full(scene.shape, -1)
    seeds[:4, :4] = 2
    valid = np.ones(scene.shape, bool)
    valid[10:14, 8:12] = False
    known = with_regions(scene).replace(seeds=seeds, valid=valid)
    found = CRF([GridTerm(1.0)], solver=solver, on=on).predict([known])[0]
    assert (found[:4, :4] == 2).all()
    np.testing.assert_array_equal(found == -1, ~valid)


@pytest.mark.parametrize("solver", ["mean_field", "cuts"])
def test_without_any_region_the_costs_stay(scene, solver):
    none = scene.replace(regions=np.full(scene.shape, -1))
    model = CRF([GridTerm(1.0)], solver=solver, on="regions")
    np.testing.assert_array_equal(model.predict([none])[0], scene.prediction)
    with pytest.raises(ValueError, match="no region at a valid pixel"):
        model.energy(none)


def test_only_mean_field_has_probabilities(scene):
    assert hasattr(CRF([]), "predict_proba")
    assert not hasattr(CRF([], solver="cuts"), "predict_proba")
    soft, hard = (
        CRF([GridTerm(1.0)], solver=s).transform([scene])[0] for s in ("mean_field", "cuts")
    )
    assert not soft.has_labels
    assert hard.has_labels
    np.testing.assert_array_equal(hard.unary, scene.unary)


def test_terms_are_searched_and_cloned():
    images, labels = halves()
    model = make_pipeline(pixels(), CRF([]))
    grid = {"crf__terms": [[], [GridTerm(0.5)], (GridTerm(1.0), BilateralKernel(2.0, 8.0, 20.0))]}
    search = GridSearchCV(model, grid, cv=[([0, 1], [2]), ([2], [0, 1])]).fit(images, labels)
    assert search.best_params_["crf__terms"] in grid["crf__terms"]
    terms = [GridTerm(2.0)]
    assert clone(CRF(terms)).terms == terms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": GridTerm(1.0)}, "'terms' parameter of CRF"),
        ({"terms": [3]}, r"terms\[0\] is a int; expected a term"),
        ({"solver": "annealing"}, "'solver' parameter of CRF"),
        ({"label_costs": [1.0]}, r"label_costs has shape \(1,\)"),
        ({"on": "regions"}, "needs superpixels"),
    ],
)
def test_bad_parameters_are_named(scene, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CRF(**({"terms": [GridTerm(1.0)]} | options)).predict([scene])


def test_the_functions_are_presets(scene):
    unary, image = scene.unary, scene.image
    weights = grid_weights(image, weight=2.0)
    labels = graph_cut(unary, weights).labels
    same = solve_cuts(Energy(unary, [EdgeTerm(weights)]))
    np.testing.assert_array_equal(labels, same.labels)
    judged = Energy(unary, [GridTerm(2.0)], image=image).energy(labels)
    assert judged == energy(labels, unary, weights)
    kernels = [GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0)]
    found = solve_mean_field(Energy(unary, kernels, image=image)).marginals
    np.testing.assert_array_equal(found, mean_field(unary, image).marginals)
    soft = solve_mean_field(Energy(unary, [EdgeTerm(weights)])).marginals
    np.testing.assert_array_equal(soft, grid_mean_field(unary, weights).marginals)


def test_a_saved_crf_is_the_same(scene, tmp_path):
    pytest.importorskip("skops")
    model = CRF([GridTerm(1.0), BilateralKernel(2.0, 8.0, 20.0)]).fit([scene])
    hybridseg.save(model, tmp_path / "crf.zip")
    again = hybridseg.load(tmp_path / "crf.zip")
    np.testing.assert_array_equal(again.predict([scene])[0], model.predict([scene])[0])


@pytest.mark.parametrize("solver", ["mean_field", "cuts"])
def test_seeds_of_pixels_are_kept_on_regions(solver):
    regions = np.array([[0, 0, 1, 1], [0, 0, 1, -1]])
    seeds = np.full((2, 4), -1)
    seeds[0, :2], seeds[1, 0], seeds[1, 3] = [1, 0], 0, 1  # region 0 is 0, one pixel in it is 1
    logits = np.tile([2.0, 0.0], (2, 4, 1))
    scene = Scene.from_logits(np.zeros((2, 4), np.uint8), logits, regions=regions, seeds=seeds)
    model = CRF([GridTerm(0.1, contrast=None)], on="regions", solver=solver)
    assert model.predict([scene])[0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
