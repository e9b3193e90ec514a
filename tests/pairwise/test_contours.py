"""Edges whose weights fall with the strength of an edge map."""

import copy
import pickle

import numpy as np
import pytest

from hybridseg import CRF, Scene
from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.learning import Learner
from hybridseg.pairwise import ContourTerm, Energy, GridTerm
from hybridseg.pairwise.terms import ScaledTerm, scaled
from tests.oracles import energy as oracle


def written_out(strengths, weight, falloff, connectivity, spacing, valid):
    """The formula, edge by edge: {(p, q): w}."""
    found = {}
    for p in np.ndindex(*strengths.shape):
        for q in np.ndindex(*strengths.shape):
            step = np.abs(np.subtract(p, q))
            if p < q and step.max() == 1 and step.sum() <= connectivity:
                distance = np.linalg.norm(step * np.asarray(spacing)) / min(spacing)
                strength = max(strengths[p], strengths[q])
                seen = valid[p] and valid[q]
                found[p, q] = seen * weight / distance * np.exp(-strength / falloff)
    return found


def energy_of(term, shape, **options):
    return Energy(np.zeros((*shape, 2)), [term], **options)


def weights_of(term, shape, **options):
    return term.edges(energy_of(term, shape, **options).sites)


@pytest.mark.parametrize(
    ("shape", "connectivity", "spacing"),
    [
        ((5, 6), 1, (1.0, 1.0)),
        ((5, 6), 2, (2.0, 0.5)),
        ((1, 6), 2, (1.0, 3.0)),
        ((3, 4, 2), 1, (3.0, 1.0, 1.0)),
        ((3, 3, 3), 3, (2.0, 0.5, 1.5)),
    ],
)
def test_weights_equal_the_formula(shape, connectivity, spacing, rng):
    strengths, valid = rng.random(shape), rng.random(shape) > 0.2
    term = ContourTerm(3.0, strengths, falloff=0.3, connectivity=connectivity)
    found = weights_of(term, shape, spacing=spacing, valid=valid)
    assert all(weights.dtype == np.float32 for weights in found.values())
    expected = written_out(strengths, 3.0, 0.3, connectivity, spacing, valid)
    edges = oracle.grid_edges(found, shape)
    assert len(edges) == len(expected)
    for p, q, w in edges:
        assert w == pytest.approx(expected[min(p, q), max(p, q)], rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_without_an_edge_it_is_the_grid_term_without_contrast(shape):
    term = ContourTerm(2.5, np.zeros(shape), connectivity=2)
    plain = weights_of(GridTerm(2.5, contrast=None, connectivity=2), shape, spacing=0.3)
    found = weights_of(term, shape, spacing=0.3)
    assert list(found) == list(plain)
    for offset, weights in plain.items():
        np.testing.assert_array_equal(found[offset], weights)


def test_the_units_of_spacing_and_map_do_not_matter(rng):
    strengths = rng.random((5, 7))
    one = weights_of(ContourTerm(2.0, strengths, 0.2), (5, 7), spacing=(1.0, 2.0))
    other = weights_of(ContourTerm(2.0, 255 * strengths, 51.0), (5, 7), spacing=(1e-3, 2e-3))
    for offset, weights in one.items():
        np.testing.assert_allclose(other[offset], weights, rtol=1e-5)


def test_a_tiny_falloff_removes_every_edge_that_touches_a_contour():
    strengths = np.zeros((3, 4))
    strengths[:, 2] = 1e-3
    found = weights_of(ContourTerm(2.0, strengths, falloff=1e-300), (3, 4))
    np.testing.assert_array_equal(found[0, 1], [[2, 0, 0]] * 3)
    np.testing.assert_array_equal(found[1, 0], [[2, 2, 0, 2]] * 2)


def test_a_cut_follows_a_contour_that_no_color_shows(rng):
    """The costs are noise but at the borders; the image has one color, and the line is slanted."""
    rows, columns = np.indices((20, 30))
    wanted = (columns > 10 + rows // 2).astype(int)
    line = np.zeros((20, 30))
    line[:, 1:][wanted[:, 1:] != wanted[:, :-1]] = 1.0
    unary = np.zeros((20, 30, 2))
    unary[:, 0, 1], unary[:, -1, 0] = 1000, 1000
    term = ContourTerm(1.0, line, falloff=1e-3)
    cut = solve_cuts(Energy(unary, [term])).labels
    differ = cut != wanted
    assert not differ[line == 0].any()  # a pixel of the line may have either label
    straight = solve_cuts(Energy(unary, [GridTerm(1.0, contrast=None)])).labels
    assert (straight != wanted)[line == 0].any()


def test_pixels_that_are_not_valid_may_hold_anything_and_have_no_edges(rng):
    strengths, valid = rng.random((4, 6)), np.ones((4, 6), bool)
    valid[:, 4:] = False
    spoilt = np.where(valid, strengths, np.nan)
    found = weights_of(ContourTerm(2.0, spoilt), (4, 6), valid=valid)
    alone = weights_of(ContourTerm(2.0, strengths[:, :4]), (4, 4))
    np.testing.assert_array_equal(found[1, 0][:, :4], alone[1, 0])
    np.testing.assert_array_equal(found[0, 1][:, :3], alone[0, 1])
    assert not found[1, 0][:, 4:].any()
    assert not found[0, 1][:, 3:].any()


def test_a_function_sees_colors_without_an_edge_at_missing_data():
    image, valid = np.full((4, 6), 200, np.uint8), np.ones((4, 6), bool)
    valid[:, 4:], image[:, 4:] = False, 0
    seen = []

    def steps(colors):
        seen.append(colors)
        return np.abs(np.gradient(colors[..., 0], axis=1)) / 255

    found = weights_of(ContourTerm(2.0, steps), (4, 6), image=image, valid=valid)
    assert seen[0].shape == (4, 6, 1)
    assert not seen[0].flags.writeable
    assert (seen[0] == 200).all()
    np.testing.assert_array_equal(found[0, 1][:, :3], np.full((4, 3), 2.0))


def test_regions_of_one_pixel_are_the_pixels(rng):
    strengths = rng.random((3, 4))
    term = ContourTerm(2.0, strengths, falloff=0.4, connectivity=2)
    regions = np.arange(12).reshape(3, 4)
    labels = rng.integers(0, 2, 12)
    on_regions = Energy(np.zeros((12, 2)), [term], regions=regions, spacing=(1.0, 2.0))
    on_pixels = energy_of(term, (3, 4), spacing=(1.0, 2.0))
    assert on_regions.energy(labels) == pytest.approx(
        on_pixels.energy(labels.reshape(3, 4)), rel=1e-5
    )


def test_a_border_of_regions_has_its_mean_strength(rng):
    strengths, regions = rng.random((6, 8)), rng.integers(0, 4, (6, 8))
    regions[0, :2] = -1
    spacing = (2.0, 0.5)
    term = ContourTerm(3.0, strengths, falloff=0.3, connectivity=2)
    sites = Energy(np.zeros((4, 2)), [term], regions=regions, spacing=spacing).sites
    i, j, w = term.edges(sites)
    plain = written_out(np.zeros((6, 8)), 3.0, 1.0, 2, spacing, regions >= 0)
    pairs = {}
    for (p, q), length in plain.items():
        pair = tuple(sorted((int(regions[p]), int(regions[q]))))
        if length and pair[0] != pair[1]:
            pairs.setdefault(pair, []).append((length, max(strengths[p], strengths[q])))
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(pairs)
    for pair, weight in zip(sorted(pairs), w, strict=True):
        lengths, between = np.transpose(pairs[pair])
        mean = (lengths * between).sum() / lengths.sum()
        assert weight == pytest.approx(lengths.sum() * np.exp(-mean / 0.3), rel=1e-5)


def test_solvers_take_it_and_the_energy_is_that_of_its_edges(rng):
    unary, strengths = rng.normal(size=(2, 3, 2)), rng.random((2, 3))
    energy = Energy(unary, [ContourTerm(0.7, strengths, 0.5)])
    edges = oracle.grid_edges(energy.terms[0].edges(energy.sites), (2, 3))
    least, best = oracle.minimum(unary, edges)
    cut = solve_cuts(energy)
    assert cut.energy == pytest.approx(least, rel=1e-5)
    assert (cut.labels == best).all(axis=(1, 2)).any()
    found = solve_mean_field(energy, n_iter=20, with_energy=True)
    assert (np.diff(found.energies) <= 1e-5).all()


def test_one_pixel_and_one_label(rng):
    assert Energy(np.ones((1, 1, 1)), [ContourTerm(2.0, [[0.5]])]).energy([[0]]) == 1.0
    one = solve_cuts(Energy(np.ones((2, 2, 1)), [ContourTerm(2.0, np.ones((2, 2)))]))
    assert not one.labels.any()


def test_scaled_terms_stay_contour_terms(rng):
    term = ContourTerm(2.0, rng.random((3, 4)), 0.3, 2)
    double = scaled(term, 2.0)
    assert isinstance(double, ContourTerm)
    assert not isinstance(double, ScaledTerm)
    assert (double.weight, double.falloff, double.connectivity) == (4.0, 0.3, 2)
    np.testing.assert_array_equal(double.edge_map, term.edge_map)


def test_a_read_only_map_is_copied_and_pickled(rng):
    strengths = rng.random((3, 4))
    strengths.setflags(write=False)
    term = ContourTerm(2.0, strengths)
    assert weights_of(term, (3, 4))[0, 1].shape == (3, 3)
    for twin in (copy.deepcopy(term), pickle.loads(pickle.dumps(term))):
        np.testing.assert_array_equal(twin.edge_map, strengths)


def brightness(colors):
    """A map of an image of any size."""
    return np.abs(np.gradient(colors.mean(axis=-1), axis=1)) / 255


def noisy_scenes(rng, n):
    scenes, truth = [], []
    for place in rng.integers(10, 20, n):
        wanted = np.zeros((20, 30), int)
        wanted[:, place:] = 1
        image = (40 + 160 * wanted).astype(np.uint8)
        logits = rng.normal(0, 1.5, (20, 30, 2)) + 1.0 * np.eye(2)[wanted]
        scenes.append(Scene.from_logits(image, logits))
        truth.append(wanted)
    return scenes, truth


@pytest.mark.parametrize("max_pixels", [10**6, 150])
def test_its_weight_is_learned_on_images_and_on_windows(rng, max_pixels):
    """On a window the weights are those of the whole image, with the map of the whole image."""
    scenes, truth = noisy_scenes(rng, 4)
    shapes = set()

    def edges(colors):
        shapes.add(colors.shape[:2])
        return brightness(colors)

    start = ContourTerm(0.2, edges, falloff=0.1)
    learner = Learner("weights", max_iter=6, cv=2, random_state=0, max_pixels=max_pixels)
    model = CRF([start], learn=learner).fit(scenes, truth)
    (term,) = model.params_["terms"]
    assert isinstance(term, ContourTerm)
    assert term.weight > start.weight
    assert term.edge_map is edges
    assert shapes == {(20, 30)}
    wrong = [np.mean(a != b) for a, b in zip(model.predict(scenes), truth, strict=True)]
    before = [np.mean(s.prediction != b) for s, b in zip(scenes, truth, strict=True)]
    assert np.mean(wrong) < np.mean(before) / 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": -1}, ValueError, "weight=-1; expected a number >= 0"),
        ({"weight": "1"}, TypeError, "weight='1' is of type str"),
        ({"falloff": 0}, ValueError, "falloff=0; expected a number > 0"),
        ({"connectivity": 0}, ValueError, "connectivity=0"),
        ({"connectivity": 3}, ValueError, "connectivity=3"),
        ({"edge_map": np.zeros((3, 5))}, ValueError, r"edge_map has shape \(3, 5\).*function"),
        ({"edge_map": np.zeros((3, 4, 1))}, ValueError, r"edge_map has shape \(3, 4, 1\)"),
        ({"edge_map": np.full((3, 4), -0.5)}, ValueError, "edge_map holds -0.5.*not logits"),
        ({"edge_map": np.full((3, 4), np.nan)}, ValueError, "edge_map holds NaN"),
        ({"edge_map": "hed"}, TypeError, "edge_map has dtype"),
        ({"edge_map": lambda: 0}, TypeError, r"edge_map\(colors\) fails"),
    ],
)
def test_bad_input_is_named(change, error, message):
    options = {"weight": 1.0, "edge_map": np.zeros((3, 4))} | change
    with pytest.raises(error, match=message):
        weights_of(ContourTerm(**options), (3, 4), image=np.zeros((3, 4)))


def test_missing_images_and_maps_of_regions_are_named():
    with pytest.raises(ValueError, match="image is None, but a term reads the image"):
        weights_of(ContourTerm(1.0, brightness), (3, 4))
    with pytest.raises(ValueError, match="ContourTerm joins the pixels.*regions=map"):
        Energy([[0, 1], [1, 0]], [ContourTerm(1.0, [0.0, 0.0])]).energy([0, 1])
