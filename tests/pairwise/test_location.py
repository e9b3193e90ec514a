"""Location priors: the same costs at the same relative positions, in every solver."""

import numpy as np
import pytest

from hybridseg import CRF, Scene
from hybridseg.inference import free_energy, solve_cuts, solve_mean_field
from hybridseg.learning import Learner
from hybridseg.pairwise import Energy, GridTerm, LocationPrior
from hybridseg.pairwise.location import with_unary_costs
from tests.oracles import energy as oracle

SHAPES = [(7, 9), (3, 5, 6)]


def table(rng, n_axes, n_labels=3):
    return rng.normal(0, 1, (*(4, 3, 2)[:n_axes], n_labels))


def costs(prior, shape, n_labels=3, **given):
    sites = Energy(np.zeros((*shape, n_labels)), **given).sites
    return prior.unary_costs(sites, n_labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_costs_are_interpolated_between_the_centers_of_cells(shape, rng):
    values = table(rng, len(shape))
    found = costs(LocationPrior(values, weight=2.0), shape)
    for place in np.ndindex(shape):
        expected = np.zeros(3)
        for cell in np.ndindex(values.shape[:-1]):
            share = 1.0
            for i, side, k, n_cells in zip(place, shape, cell, values.shape, strict=False):
                at = np.clip((i + 0.5) / side * n_cells - 0.5, 0, n_cells - 1)
                share *= max(0.0, 1 - abs(at - k))
            expected += share * values[cell]
        np.testing.assert_allclose(found[place], 2 * expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_commute_and_a_larger_image_gets_the_same_costs(shape, rng):
    values = table(rng, len(shape))
    found = costs(LocationPrior(values), shape)
    flipped = costs(LocationPrior(np.flip(values, axis=1)), shape)
    np.testing.assert_allclose(flipped, np.flip(found, axis=1), atol=1e-12)
    wide = costs(LocationPrior(values), tuple(3 * side for side in shape))
    middle = wide[tuple(slice(1, None, 3) for _ in shape)]  # the same relative positions
    np.testing.assert_allclose(middle, found, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_window_has_the_costs_of_the_whole(shape, rng):
    prior = LocationPrior(table(rng, len(shape)))
    box = tuple(slice(1, side - 1) for side in shape)
    inside = tuple(side - 2 for side in shape)
    np.testing.assert_allclose(costs(prior.in_box(shape, box), inside), costs(prior, shape)[box])


@pytest.mark.parametrize("on", ["pixels", "masked", "regions"])
def test_all_who_use_an_energy_use_the_sum(on, rng):
    """The same as adding the costs to the unary costs."""
    shape, prior = (4, 5), LocationPrior(table(rng, 2))
    given, unary = {}, rng.normal(0, 1, (*shape, 3))
    if on == "masked":
        given["valid"] = rng.random(shape) < 0.7
    if on == "regions":
        given["regions"] = np.arange(20).reshape(shape) // 3
        unary = rng.normal(0, 1, (7, 3))
    terms = [GridTerm(0.7, contrast=None)]
    energy = Energy(unary, [*terms, prior], **given)
    extra = prior.unary_costs(energy.sites, 3)
    plain = Energy(unary + extra, terms, **given)
    if on == "masked":
        assert (extra[~given["valid"]] == 0).all()
    labels = rng.integers(0, 3, energy.shape)
    assert energy.energy(labels) == pytest.approx(plain.energy(labels))
    np.testing.assert_array_equal(energy.cheapest(), plain.cheapest())
    one, other = solve_cuts(energy), solve_cuts(plain)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.energy == pytest.approx(other.energy)
    marginals = solve_mean_field(energy).marginals
    np.testing.assert_allclose(marginals, solve_mean_field(plain).marginals, atol=1e-5)
    assert free_energy(energy, marginals) == pytest.approx(free_energy(plain, marginals), rel=1e-6)
    assert energy.with_terms(terms).energy(labels) == pytest.approx(
        Energy(unary, terms, **given).energy(labels)
    )


def test_two_labels_on_a_grid_are_solved_exactly(rng):
    prior = LocationPrior(table(rng, 2, 2), weight=3.0)
    energy = Energy(rng.normal(0, 1, (3, 4, 2)), [GridTerm(0.5, contrast=None), prior])
    labelings = oracle.every_labeling((3, 4), 2)
    least = min(energy.energy(labels) for labels in labelings)
    assert solve_cuts(energy).energy == pytest.approx(least)


def test_seeds_win(rng):
    prior = LocationPrior(np.full((2, 2, 2), [0.0, 1e4]))
    seeds = np.full((4, 5), -1)
    seeds[1, 2] = 1
    energy = Energy(rng.normal(0, 1, (4, 5, 2)), [prior], seeds=seeds)
    assert solve_mean_field(energy).marginals[1, 2, 1] == 1
    assert solve_cuts(energy).labels[1, 2] == 1


def test_costs_from_label_maps():
    maps = [np.array([[2, 2], [5, 5]])] * 9
    prior = LocationPrior.from_label_maps(maps, [2, 5, 7], grid=(2, 1), prior=1.0)
    often, never = -np.log(10 / 5.5), -np.log(1 / 5.5)
    np.testing.assert_allclose(prior.costs[0, 0], [often, never, 0])
    np.testing.assert_allclose(prior.costs[1, 0], [never, often, 0])
    weak = LocationPrior.from_label_maps(maps, [2, 5, 7], grid=(2, 1), prior=1e6).costs
    np.testing.assert_allclose(weak, 0, atol=1e-4)
    void = [np.where(m == 5, -1, m) for m in maps]
    known = LocationPrior.from_label_maps(void, [2, 5, 7], grid=(2, 1)).costs
    np.testing.assert_allclose(known, 0, atol=1e-12)  # the one known label is everywhere as usual
    volumes = [np.zeros((4, 5, 6), int)]
    assert np.shape(LocationPrior.from_label_maps(volumes, [0, 1]).costs) == (6, 8, 8, 2)


def test_a_label_of_one_map_costs_little_even_if_it_is_rare():
    maps = [np.zeros((12, 16), int) for _ in range(100)]
    maps[0][3, 4] = 1
    values = LocationPrior.from_label_maps(maps, [0, 1]).costs[..., 1]
    assert -np.log(4 / 3) - 1e-9 <= values.min() < values.max() < 0.01


def test_maps_of_all_sizes_count_the_same(rng):
    small = rng.integers(0, 3, (4, 6))
    large = small.repeat(3, 0).repeat(5, 1)
    ways = [
        LocationPrior.from_label_maps(maps, [0, 1, 2], grid=(2, 3)).costs
        for maps in ([small, small], [small, large])
    ]
    np.testing.assert_allclose(*ways, atol=1e-12)


def test_its_factor_is_learned(rng):
    """Costs without any information, and labels that follow from the position alone."""
    truth = np.zeros((12, 16), int)
    truth[6:] = 1
    maps = [truth] * 6
    prior = LocationPrior.from_label_maps(maps, [0, 1], weight=0.05, grid=(4, 4))
    scenes = [
        Scene.from_logits(rng.integers(0, 255, (12, 16)).astype(np.uint8), logits)
        for logits in rng.normal(0, 0.3, (6, 12, 16, 2))
    ]
    learner = Learner("weights", max_iter=40, random_state=0)
    model = CRF([GridTerm(0.1, contrast=None), prior], learn=learner).fit(scenes, maps)
    learned = model.params_["terms"][1]
    assert learned.weight > 0.5
    assert model.score(scenes, maps) > 0.95
    np.testing.assert_array_equal(
        prior.messages_gradient(None, np.ones((2, 2)), np.ones((2, 2))), np.zeros((2, 2))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocationPrior(np.zeros(3)), r"costs has shape \(3,\)"),
        (lambda: LocationPrior(np.full((2, 2, 2), np.nan)), "costs holds values that are not fin"),
        (lambda: LocationPrior(np.zeros((2, 2, 2)), -1), "weight=-1"),
        (lambda: LocationPrior.from_label_maps([], [0, 1]), "y is empty"),
        (lambda: LocationPrior.from_label_maps([[[3]]], [0, 1]), r"y\[0\] holds the label 3"),
        (lambda: LocationPrior.from_label_maps([[[0]]], [0, 1], grid=(1, 1, 1)), "has 3 axes"),
        (lambda: LocationPrior.from_label_maps([[[0]]], [0, 1], grid=(0, 1)), r"grid\[0\]=0"),
        (lambda: LocationPrior.from_label_maps([[[0]]], [0, 1], prior=0), "prior=0"),
        (lambda: costs(LocationPrior(np.zeros((2, 2, 2))), (3, 4)), "for an energy of 3 labels"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_costs_of_other_terms_are_checked():
    class Wrong:
        def __init__(self, costs):
            self.costs = costs

        def unary_costs(self, sites, n_labels):
            return self.costs

    unary = np.zeros((2, 3, 2), np.float32)
    sites = Energy(unary).sites
    with pytest.raises(ValueError, match=r"Wrong.unary_costs.* has shape \(2,\)"):
        with_unary_costs(unary, [Wrong([0, 1])], sites)
    for large in (np.inf, 1e300):
        with pytest.raises(ValueError, match="Wrong.unary_costs"):
            with_unary_costs(unary, [Wrong(np.full((2, 3, 2), large))], sites)
    assert with_unary_costs(unary, [], sites) is unary
