"""The energy of neighbors, which GridCRF and GraphCut share, and the search for its weight."""

import numpy as np
import pytest

from hybridseg import GraphCut, GridCRF, Scene
from hybridseg.inference.neighbors import NeighborRefiner
from hybridseg.inference.restraint import STRENGTHS
from hybridseg.inference.scene_energy import restraint_of
from hybridseg.pairwise import BilateralKernel, GridTerm, RegionTerm

REFINERS = [GridCRF, GraphCut]
SHAPE = (18, 24)
REGIONS = np.indices(SHAPE)[0] // 3 * 8 + np.indices(SHAPE)[1] // 3


def noisy(**known):
    """Two halves with costs that are wrong at single pixels."""
    rng = np.random.default_rng(0)
    truth = (np.indices(SHAPE)[1] > 11).astype(int)
    image = np.clip(truth * 90 + rng.normal(60, 8, SHAPE), 0, 255).astype(np.uint8)
    seen = np.where(rng.random(SHAPE) < 0.2, 1 - truth, truth)
    proba = np.where(np.eye(2, dtype=bool)[seen], 0.8, 0.2)
    return Scene.from_proba(image, proba, **known)


def weight_of(refiner, scene):
    return refiner.parameters_for([scene])[0]["weight"]


@pytest.mark.parametrize("on", ["pixels", "regions"])
@pytest.mark.parametrize("refiner", REFINERS)
def test_the_weight_that_auto_finds_gives_the_same_as_the_number(refiner, on):
    scene = noisy(regions=REGIONS)
    found = weight_of(refiner(on=on), scene)
    assert found in (0.0, *STRENGTHS)
    np.testing.assert_array_equal(
        refiner(on=on).predict([scene])[0], refiner(on=on, weight=found).predict([scene])[0]
    )
    assert weight_of(refiner(on=on, weight=3.7), scene) == 3.7


@pytest.mark.parametrize("refiner", REFINERS)
def test_the_result_of_auto_is_allowed_by_the_costs(refiner):
    model, scene = refiner(), noisy()
    assert weight_of(model, scene) > 0
    labels = model.predict([scene])[0]
    restraint = restraint_of(model._energy(scene, {"weight": 1.0}))
    assert restraint.allows(restraint.totals(labels))


@pytest.mark.parametrize("refiner", REFINERS)
def test_a_weight_of_zero_leaves_the_cheapest_labels(refiner):
    scene = noisy(regions=np.arange(REGIONS.size).reshape(SHAPE))
    for on in ("pixels", "regions"):
        found = refiner(on=on, weight=0.0).predict([scene])[0]
        np.testing.assert_array_equal(found, scene.unary.argmin(axis=-1))


@pytest.mark.parametrize("refiner", REFINERS)
def test_the_energy_joins_neighbors_of_what_is_labeled(refiner):
    by_pixel = refiner(connectivity=2)._energy(noisy(), {"weight": 2.0})
    assert by_pixel.terms == (GridTerm(2.0, "auto", 2),)
    model = refiner(on="regions", contrast=None)
    by_region = model._energy(noisy(regions=REGIONS), {"weight": 2.0})
    assert by_region.terms == (RegionTerm(2.0, None),)
    assert by_region.shape == (REGIONS.max() + 1,)


def test_kernels_join_regions_beside_their_neighbors_and_are_searched_with_them():
    kernel, scene = BilateralKernel(1.0, 5.0, 10.0), noisy(regions=REGIONS)
    model = GridCRF(on="regions", kernels=[kernel])
    assert model._energy(scene, {"weight": 2.0}).terms == (RegionTerm(2.0, "auto"), kernel)
    same = GridCRF(on="regions", kernels=[kernel], weight=weight_of(model, scene))
    np.testing.assert_allclose(
        model.predict_proba([scene])[0], same.predict_proba([scene])[0], atol=1e-6
    )


@pytest.mark.parametrize("refiner", REFINERS)
def test_without_any_region_the_weight_is_zero(refiner):
    nowhere = noisy(regions=np.full(SHAPE, -1))
    assert weight_of(refiner(on="regions"), nowhere) == 0.0
    assert refiner(on="regions")._solved(nowhere) == (None, None)


def test_the_hook_is_asked_for():
    with pytest.raises(TypeError, match=r"NeighborRefiner lacks the hook _solve\(energy\)"):
        NeighborRefiner._solve(object.__new__(NeighborRefiner), None)
