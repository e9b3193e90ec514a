"""A Scene becomes an energy of pixels or regions, and the solution becomes pixels again."""

import types

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.inference.scene_energy import (
    has_region,
    part_of,
    regions_of,
    scene_energy,
    seed_indices,
    spread_labels,
    spread_marginals,
)
from hybridseg.pairwise import Energy, GridTerm
from hybridseg.scene.costs import RegionCosts


def scene(seed=0, shape=(9, 12), **known):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    return Scene.from_logits(image, rng.normal(size=(*shape, 3)), (0, 1, 2), **known)


def test_regions_are_read_without_the_costs_of_the_scene():
    """The map is requested by name; the deferred ``region_costs`` is not computed."""
    given = scene(regions=np.arange(108, dtype=np.int32).reshape(9, 12))
    bare = types.SimpleNamespace(regions=given.regions, shape=given.shape)
    np.testing.assert_array_equal(regions_of(bare, None), given.regions)


@pytest.mark.parametrize("factor", [1, 3, 10**9])
def test_regions_are_numbered_without_gaps(factor):
    """A table renumbers small numbers, and sorting renumbers large ones."""
    given = np.random.default_rng(0).integers(-1, 30, (9, 12))
    valid = np.random.default_rng(1).random((9, 12)) < 0.8
    bare = types.SimpleNamespace(
        regions=np.where(given < 0, -1, given * factor), shape=(9, 12), valid=valid
    )
    found, inside = regions_of(bare, valid), (given >= 0) & valid
    np.testing.assert_array_equal(found[~inside], -1)
    np.testing.assert_array_equal(found[inside], np.unique(given[inside], return_inverse=True)[1])


SHAPE = (9, 12)
REGIONS = np.indices(SHAPE)[0] // 3 * 4 + np.indices(SHAPE)[1] // 3


def test_a_region_pays_the_sum_of_its_pixels():
    given = scene(regions=REGIONS)
    whole = scene_energy(given, [])
    by_region = scene_energy(given, [], on="regions")
    labels = np.random.default_rng(2).integers(0, 3, 12)
    expected = whole.energy(labels[REGIONS])
    assert by_region.energy(labels) == pytest.approx(expected, rel=1e-5)


def test_pixels_that_are_not_valid_cost_nothing():
    valid = np.random.default_rng(1).random(SHAPE) < 0.5
    energy = scene_energy(scene(valid=valid), [])
    assert (energy.unary[~valid] == 0).all()
    np.testing.assert_array_equal(energy.unary[valid], scene().unary[valid])


def test_seeds_are_indices_and_a_regions_is_its_most_frequent():
    seeds = np.full(SHAPE, -1)
    seeds[0, :3] = [1, 2, 2]
    seeds[8, 11] = 0
    given = scene(regions=REGIONS, seeds=seeds)
    np.testing.assert_array_equal(seed_indices(given, None), seeds)
    found = scene_energy(given, [], on="regions", seeded=True).seeds
    assert found.tolist() == [2, *[-1] * 10, 0]
    assert scene_energy(given, [], on="regions").seeds is None
    outside = np.ones(SHAPE, bool)
    outside[0] = False
    assert (seed_indices(given, outside)[0] == -1).all()
    with pytest.raises(ValueError, match="seeds holds the label 7; expected one of the classes"):
        seed_indices(scene(seeds=seeds * 0 + 7), None)


def test_a_box_of_an_energy_is_the_energy_of_the_box():
    seeds = np.random.default_rng(0).integers(-1, 3, SHAPE)
    energy = scene_energy(scene(seeds=seeds), [GridTerm(2.0, None)], seeded=True)
    box = (slice(2, 7), slice(0, 12))
    part = part_of(energy, box, [GridTerm(2.0, None)])
    labels = np.random.default_rng(1).integers(0, 3, (5, 12))
    np.testing.assert_array_equal(part.seeds, seeds[box])
    alone = Energy(energy.unary[box], [GridTerm(2.0, None)], image=np.zeros((5, 12)))
    assert part.energy(labels) == pytest.approx(alone.energy(labels), rel=1e-6)
    whole = part_of(energy, (slice(0, 9), slice(0, 12)), [])
    assert whole.sites is energy.sites


def test_results_of_regions_spread_to_their_pixels():
    """Pixels outside the regions keep their own costs and their cheapest labels, and seeds stay."""
    holes = np.where(REGIONS < 9, REGIONS, -1)
    found = np.random.default_rng(2).integers(0, 3, 9).astype(np.int32)
    marginals = np.eye(3, dtype=np.float32)[found]
    given = scene(regions=holes)
    labels = spread_labels(given, holes, found)
    costs = spread_marginals(given, holes, marginals)
    inside = holes >= 0
    for array in (labels, costs.argmin(axis=-1)):
        np.testing.assert_array_equal(array[inside], found[holes[inside]])
        np.testing.assert_array_equal(array[~inside], given.unary.argmin(axis=-1)[~inside])
    np.testing.assert_array_equal(spread_labels(given, None, None), given.unary.argmin(axis=-1))
    seeds = np.full(SHAPE, -1)
    seeds[0, 0] = (found[0] + 1) % 3
    seeded = spread_labels(scene(regions=holes, seeds=seeds), holes, found)
    assert np.argwhere(seeded != labels).tolist() == [[0, 0]]
    whole = spread_marginals(scene(regions=REGIONS), REGIONS, np.full((12, 3), 1 / 3, np.float32))
    assert isinstance(whole, RegionCosts)


def test_regions_must_be_there_and_valid():
    bare, nothing = scene(), scene(regions=REGIONS, valid=np.zeros(SHAPE, bool))
    for call in (lambda: has_region(bare), lambda: scene_energy(bare, [], on="regions")):
        with pytest.raises(ValueError, match="on='regions' needs superpixels"):
            call()
    assert has_region(scene(regions=REGIONS))
    assert not has_region(nothing)
    with pytest.raises(ValueError, match="has no region at a valid pixel"):
        scene_energy(nothing, [], on="regions")
