"""Refiners with their defaults follow the image and the costs, and do no harm."""

import numpy as np
import pytest
from sklearn.base import clone

from hybridseg import DenseCRF, GraphCut, GridCRF, LevelSet, RandomWalker, Scene
from hybridseg.inference.restraint import STRENGTHS, Restraint, cut_out, strongest
from hybridseg.pairwise import grid_weights
from hybridseg.scene.costs import RegionCosts

REFINERS = [DenseCRF, GridCRF, GraphCut, LevelSet, RandomWalker]


def noisy(shape=(40, 56), n_labels=2, seed=0, wrong=0.2, **known):
    """Stripes with costs that are confidently wrong at single pixels, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.indices(shape)[-1] * n_labels // shape[-1]
    image = np.clip(truth[..., None] * 90 + rng.normal(40, 8, (*shape, 3)), 0, 255)
    seen = np.where(rng.random(shape) < wrong, rng.integers(n_labels, size=shape), truth)
    proba = np.full((*shape, n_labels), wrong / n_labels)
    np.put_along_axis(proba, seen[..., None], 1 - wrong * (n_labels - 1) / n_labels, -1)
    return Scene.from_proba(image.astype(np.uint8), proba, **known), truth


def lines(sure=0.9, shape=(64, 80)):
    """Lines one pixel wide, fainter than the image's contrast, with correct costs."""
    truth = np.zeros(shape, int)
    truth[6::9], truth[:, 7::13] = 1, 1
    image = np.full(shape, 120, np.uint8)
    image[:, shape[1] // 2 :] = 200
    image[truth == 1] += 3
    proba = np.where(np.eye(2, dtype=bool)[truth], sure, 1 - sure)
    return Scene.from_proba(image, proba), truth


@pytest.mark.parametrize("refiner", REFINERS)
def test_thin_parts_that_the_costs_are_right_about_stay(refiner):
    scene, truth = lines()
    labels = refiner().predict([scene])[0]
    assert (labels == truth)[truth == 1].mean() > 0.9


@pytest.mark.parametrize("refiner", REFINERS)
def test_certain_costs_stay(refiner):
    rng = np.random.default_rng(0)
    wanted = rng.integers(3, size=(20, 30))
    costs = np.where(np.eye(3, dtype=bool)[wanted], 0, 200).astype(np.float32)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    labels = refiner().predict([Scene(image, costs, spatial_ndim=2)])[0]
    np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize("refiner", [DenseCRF, GraphCut, LevelSet])
def test_costs_of_any_size_are_taken(refiner):
    wanted = np.random.default_rng(0).integers(2, size=(9, 12))
    costs = np.where(np.eye(2, dtype=bool)[wanted], -1.7e38, 1.7e38).astype(np.float32)
    labels = refiner().predict([Scene(np.zeros((9, 12), np.uint8), costs, spatial_ndim=2)])[0]
    np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize(("shape", "n_labels"), [((40, 56), 2), ((48, 60), 4), ((8, 20, 24), 2)])
@pytest.mark.parametrize("refiner", REFINERS)
def test_noise_of_single_pixels_goes(refiner, shape, n_labels):
    scene, truth = noisy(shape, n_labels, spatial_ndim=len(shape))
    before = (scene.prediction == truth).mean()
    after = (refiner().predict([scene])[0] == truth).mean()
    assert 1 - after < (1 - before) / 2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "n_labels"), [((40, 56), 2), ((30, 41), 5), ((7, 20, 24), 3)])
@pytest.mark.parametrize("refiner", REFINERS)
def test_no_result_overrules_the_costs_by_more_than_they_allow(refiner, shape, n_labels, masked):
    rng = np.random.default_rng(3)
    for spread in (0.5, 2.0):
        logits = spread * rng.normal(size=(*shape, n_labels))
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        valid = np.indices(shape)[-1] < 17 if masked else None
        scene = Scene.from_logits(image, logits, valid=valid, spatial_ndim=len(shape))
        labels = refiner().predict([scene])[0]
        restraint = Restraint.of(np.asarray(scene.unary), valid)
        assert restraint.allows(restraint.totals(np.maximum(labels, 0)))


@pytest.mark.parametrize("refiner", REFINERS)
def test_the_values_of_auto_give_the_same_as_numbers(refiner):
    scene = noisy(n_labels=3, spacing=(2.0, 1.0))[0]
    (taken,) = refiner().parameters_for([scene])
    assert all(isinstance(value, int | float) for value in taken.values())
    given = clone(refiner(**taken))
    np.testing.assert_array_equal(given.predict([scene])[0], refiner().predict([scene])[0])
    assert given.parameters_for([scene]) == [taken]


@pytest.mark.parametrize("refiner", REFINERS)
@pytest.mark.parametrize("unit", [1e-3, 25.4])
def test_the_unit_of_spacing_does_not_matter(refiner, unit):
    one, other = (noisy(n_labels=3, spacing=(2 * k, 1 * k))[0] for k in (1.0, unit))
    np.testing.assert_array_equal(refiner().predict([one])[0], refiner().predict([other])[0])


def test_widths_follow_the_image():
    (small,) = DenseCRF().parameters_for([noisy((60, 80))[0]])
    (large,) = DenseCRF().parameters_for([noisy((120, 160))[0]])
    assert large["bilateral_width"] == pytest.approx(2 * small["bilateral_width"])
    assert large["spatial_width"] == small["spatial_width"] == 1
    scene = noisy((60, 80))[0]
    faint = scene.replace(image=scene.image // 4)
    (found,) = DenseCRF().parameters_for([faint])
    assert found["bilateral_color"] == pytest.approx(small["bilateral_color"] / 4, rel=0.05)
    plain = scene.replace(image=np.full((60, 80), 7, np.uint8))
    assert DenseCRF().parameters_for([plain])[0]["bilateral_color"] == 1 / 8


def test_numbers_stay_beside_auto():
    scene = noisy()[0]
    (taken,) = DenseCRF(bilateral_weight=1.5, spatial_width=2.0).parameters_for([scene])
    assert (taken["bilateral_weight"], taken["spatial_width"]) == (1.5, 2.0)
    (taken,) = LevelSet(sigma=3.0).parameters_for([scene])
    assert taken["sigma"] == 3.0


@pytest.mark.parametrize("refiner", REFINERS)
def test_one_label_and_no_valid_pixel(refiner):
    image = np.zeros((6, 7), np.uint8)
    assert not refiner().predict([Scene.from_logits(image, np.zeros((6, 7, 1)))])[0].any()
    nothing = Scene.from_logits(image, np.zeros((6, 7, 2)), valid=np.zeros((6, 7), bool))
    assert (refiner().predict([nothing])[0] == -1).all()


@pytest.mark.parametrize("refiner", [GraphCut, LevelSet])
def test_seeds_are_obeyed_and_do_not_count(refiner):
    scene, truth = noisy()
    seeds = np.full(truth.shape, -1)
    seeds[10:20, 10:20] = 1  # against the costs
    labels = refiner().predict([scene.replace(seeds=seeds)])[0]
    assert (labels[seeds == 1] == 1).all()
    assert (labels == truth)[seeds < 0].mean() > (scene.prediction == truth)[seeds < 0].mean()


@pytest.mark.parametrize("refiner", [GraphCut, GridCRF])
def test_regions_follow_the_costs_too(refiner):
    rng = np.random.default_rng(0)
    regions = np.kron(np.arange(48).reshape(6, 8), np.ones((4, 4), int)).astype(np.int32)
    costs = RegionCosts(regions, rng.random((48, 3)).astype(np.float32))
    image = rng.integers(0, 256, (24, 32), dtype=np.uint8)
    scene = Scene(image, costs, spatial_ndim=2, classes=np.arange(3))
    labels = refiner(on="regions").predict([scene])[0]
    assert (labels == labels[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    restraint = Restraint.of_regions(16 * costs.costs, np.full(48, 16))
    assert restraint.allows(restraint.totals(labels[::4, ::4].ravel()))
    assert refiner(on="regions").parameters_for([scene])[0]["weight"] in (0.0, *STRENGTHS)


def test_noise_differs_from_edges():
    rng = np.random.default_rng(0)
    edges = np.zeros((60, 80, 2))
    edges[:, :40, 0], edges[:, 40:, 1] = 1, 1
    random = rng.random((60, 80, 2))
    assert Restraint.of(edges).noise == 0
    assert Restraint.of(random).noise > 0.9
    blocks = np.kron(rng.random((15, 20, 2)), np.ones((4, 4, 1)))
    assert Restraint.of(blocks).noise == 0


def test_a_class_keeps_the_area_that_is_expected():
    proba = np.full((20, 20, 2), (0.6, 0.4))
    proba[:5] = 0.45, 0.55
    restraint = Restraint.of(-np.log(proba))
    labels = restraint.cheapest.copy()
    assert restraint.allows(restraint.totals(labels))
    labels[0] = 0  # overrules little, but takes a fifth of a class that should be larger
    assert not restraint.allows(restraint.totals(labels))


def test_the_strongest_that_is_allowed_is_taken():
    proba = np.random.default_rng(0).dirichlet((1, 1), (300, 300))
    restraint = Restraint.of(-np.log(np.maximum(proba, 1e-4)))
    asked = []

    def solve(box, strength, most):
        asked.append((restraint.cheapest[box].size, strength))
        labels = restraint.cheapest[box]
        return (labels if strength <= most else 1 - labels), strength

    for most in (0.0, 0.3, 2.0, 99.0):
        found = strongest(restraint, lambda box, strength, most=most: solve(box, strength, most))
        expected = max((s for s in STRENGTHS if s <= most), default=0.0)
        assert found == (expected, expected)
    assert sum(size for size, _ in asked) < 4 * 1.7 * restraint.cheapest.size  # mostly on parts


def test_weights_are_cut_out_with_the_image():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    whole = grid_weights(image, connectivity=2, contrast=40.0)
    box = (slice(2, 7), slice(3, 9))
    for offset, part in grid_weights(image[box], connectivity=2, contrast=40.0).items():
        np.testing.assert_allclose(cut_out(whole, box, 2.0)[offset], 2 * part, rtol=1e-6)


@pytest.mark.parametrize("refiner", REFINERS)
def test_only_auto_and_numbers_are_taken(refiner):
    name = "smoothing" if refiner is LevelSet else "weight"
    name = "bilateral_weight" if refiner is DenseCRF else name
    with pytest.raises(ValueError, match=f"'{name}' parameter of {refiner.__name__}"):
        refiner(**{name: "automatic"}).predict([noisy()[0]])


#: Costs of three pixels and two labels, in nats, and the probabilities of the first label.
THREE = np.array([[[0.0, 2.0], [3.0, 0.0], [1.0, 1.5]]])
FIRST = 1 / (1 + np.exp([-2.0, 3.0, -0.5]))
#: What each pixel is expected to cost above its cheapest label.
DOUBT = np.array([2.0, 3.0, 0.5]) * [1 - FIRST[0], FIRST[1], 1 - FIRST[2]]


def test_totals_are_as_by_hand():
    overruled, doubt, before, after, expected = Restraint.of(THREE).totals(np.array([[1, 1, 0]]))
    np.testing.assert_allclose(overruled, [2, 0])  # the first pixel alone is overruled
    np.testing.assert_allclose(doubt, [DOUBT[0] + DOUBT[2], DOUBT[1]], rtol=1e-5)
    np.testing.assert_array_equal(before, [2, 1])
    np.testing.assert_array_equal(after, [1, 2])
    np.testing.assert_allclose(expected, [FIRST.sum(), 3 - FIRST.sum()], rtol=1e-5)


def test_pixels_that_are_ignored_are_in_no_total():
    labels = np.array([[1, 1, 0]])
    masked = Restraint.of(THREE, np.array([[True, True, False]])).totals(labels)
    np.testing.assert_allclose(masked, Restraint.of(THREE[:, :2]).totals(labels[:, :2]), rtol=1e-6)


def test_regions_have_the_totals_of_their_pixels():
    sizes, labels = np.array([4, 2, 7]), np.array([1, 1, 0])
    regions = Restraint.of_regions(THREE[0] * sizes[:, np.newaxis], sizes)
    pixels = Restraint.of(THREE[0].repeat(sizes, axis=0)[np.newaxis])
    assert regions.noise == 0
    np.testing.assert_allclose(
        regions.totals(labels), pixels.totals(labels.repeat(sizes)[np.newaxis]), rtol=1e-5
    )


@pytest.mark.parametrize("masked", [False, True])
def test_totals_of_parts_add_up(rng, masked):
    costs, labels = rng.random((6, 8, 3)), rng.integers(0, 3, (6, 8))
    whole = Restraint.of(costs, rng.random((6, 8)) < 0.6 if masked else None)
    boxes = [(slice(0, 6), slice(0, 3)), (slice(0, 6), slice(3, 8))]
    parts = [whole.within(box) for box in boxes]
    assert {part.noise for part in parts} == {whole.noise}
    total = sum(part.totals(labels[box]) for part, box in zip(parts, boxes, strict=True))
    np.testing.assert_allclose(total, whole.totals(labels), rtol=1e-5)
    regions = Restraint.of_regions(costs[0], rng.integers(1, 9, 8))
    cut = [regions.within((part,)).totals(labels[0, part]) for part in (slice(3), slice(3, 8))]
    np.testing.assert_allclose(sum(cut), regions.totals(labels[0]), rtol=1e-5)


def allowed(noise=0.0, overruled=(0, 0), doubt=(100, 100), after=(100, 100), expected=(110, 90)):
    nothing = np.zeros((1, 1, 2), np.float32)
    restraint = Restraint(nothing, nothing, nothing[..., 0].astype(np.intp), None, None, noise)
    return restraint.allows(np.array([overruled, doubt, (100, 100), after, expected], float))


@pytest.mark.parametrize(("noise", "most"), [(0.0, 3.0), (0.05, 13.0)])
def test_a_result_overrules_a_fraction_of_the_doubt(noise, most):
    """1.5% of a doubt of 200, and more with noise."""
    assert allowed(noise, overruled=(most / 2 - 0.01, most / 2))
    assert not allowed(noise, overruled=(most / 2 + 0.01, most / 2))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_overruled_by_three_times_that_fraction_of_its_own_doubt(label):
    """Its doubt counts with a tenth of the image's, divided among the two classes: 0 + 50."""
    doubt, overruled = np.full(2, 1000.0), np.zeros(2)
    doubt[label] = 0
    overruled[label] = 3 * 0.015 * 50 - 0.01
    assert allowed(overruled=overruled, doubt=doubt)
    overruled[label] += 0.02
    assert not allowed(overruled=overruled, doubt=doubt)


@pytest.mark.parametrize(("noise", "fraction"), [(0.0, 0.03), (0.05, 0.08), (0.5, 0.12)])
def test_a_class_keeps_its_area_but_for_a_fraction(noise, fraction):
    """The class keeps the smaller of its areas, before and expected: 100 and 90."""
    may_lose = fraction * (100 + 0.05 * 200 / 2)
    for least, others in [((100, 0), (0, 200)), ((0, 90), (200, 0))]:
        least, others = np.array(least), np.array(others)
        after = np.where(least > 0, least - may_lose, others)
        assert allowed(noise, after=after + 0.01 * (least > 0))
        assert not allowed(noise, after=after - 0.01 * (least > 0))


@pytest.mark.parametrize("shape", [(300, 300), (200, 500), (40, 1000), (50, 60, 70)])
def test_strengths_are_tried_on_boxes_in_the_middle_of_each_half(shape):
    restraint = Restraint.of(np.zeros((*shape, 1)))
    seen = np.zeros(shape, int)
    for box in restraint.boxes():
        seen[box] += 1
    assert seen.max() == 1
    assert seen.sum() <= {2: 2**14, 3: 2**15}[len(shape)]
    assert seen.sum() == 2**14 or min(shape) <= 70
    for axis in range(len(shape)):
        np.testing.assert_array_equal(seen, np.flip(seen, axis))
    assert restraint.boxes(whole=True) == [tuple(slice(0, n) for n in shape)]


@pytest.mark.parametrize(("shape", "n_boxes"), [((128, 256), 1), ((129, 256), 4)])
def test_all_of_an_image_is_tried_up_to_twice_the_pixels_of_the_boxes(shape, n_boxes):
    assert len(Restraint.of(np.zeros((*shape, 1))).boxes()) == n_boxes


@pytest.mark.parametrize(("valid_rows", "n_boxes"), [(193 + 16, 1), (193 + 17, 4)])
def test_all_of_an_image_is_tried_where_a_box_is_mostly_not_valid(valid_rows, n_boxes):
    """The boxes hold rows 43 to 107 and 193 to 257: more than a quarter of them must be valid."""
    counted = np.indices((300, 300))[0] < valid_rows
    assert len(Restraint.of(np.zeros((300, 300, 1)), counted).boxes()) == n_boxes


def test_noise_is_looked_for_where_pixels_count(rng):
    costs = np.zeros((60, 80, 2))
    costs[..., 1] = 1
    costs[:, 40:] = rng.random((60, 40, 2))
    right = np.indices((60, 80))[1] >= 40
    assert Restraint.of(costs, ~right).noise == 0
    assert Restraint.of(costs, right).noise > 0.9


def with_own_costs(rng, labels):
    """Costs whose cheapest labels are ``labels`` and that differ at every pixel."""
    return np.where(labels[..., np.newaxis] == [0, 1], 0, 1 + rng.random((*labels.shape, 1)))


def test_noise_of_single_pixels_beside_a_straight_edge_is_as_by_hand(rng):
    labels = np.zeros((60, 80), int)
    labels[:, 40:] = 1
    labels[5:55:10, 5:35:10] = 1  # 15 pixels
    # changes between neighbors: 60 at the edge, 4 at each pixel; two steps apart: 2 * 60, and 4
    near = (60 + 4 * 15) / (60 * 79 + 59 * 80)
    far = (2 * 60 + 4 * 15) / (60 * 78 + 58 * 80)
    expected = ((2 - far / near) - 0.2) / (0.9 - 0.2)
    assert 0.3 < expected < 0.5
    assert Restraint.of(with_own_costs(rng, labels)).noise == pytest.approx(expected, rel=0.02)


def test_pixels_that_are_ignored_do_not_change_the_noise(rng):
    labels = np.zeros((60, 80), int)
    labels[:, 40:] = 1
    labels[5:35:10, 5:35:10] = 1
    counted = np.indices(labels.shape)[0] < 40
    costs = with_own_costs(rng, labels)
    expected = Restraint.of(costs, counted).noise
    assert 0.1 < expected < 0.9
    costs[40:] = rng.random((20, 80, 2))
    assert Restraint.of(costs, counted).noise == expected
    assert Restraint.of(costs).noise > expected


@pytest.mark.parametrize("counted", [None, np.ones((60, 80), bool)])
def test_lines_are_noise_as_far_as_their_pixels_have_costs_of_their_own(rng, counted):
    labels = np.zeros((60, 80), int)
    labels[:, 5::10] = 1
    costs = with_own_costs(rng, labels)
    assert Restraint.of(costs, counted).noise == 1
    # a line's pixels have 2 * 60 neighbors beside it and 2 * 59 on it; 17 pairs agree
    costs[0:51:3] = np.where(labels[0:51:3, :, np.newaxis] == 1, costs[1:52:3], costs[0:51:3])
    shared = 2 * 17 / (2 * 60 + 2 * 59)
    assert Restraint.of(costs, counted).noise == pytest.approx(1 - 4 * shared, abs=0.02)
    costs[:, 5::10] = 1, 0  # all agree
    assert Restraint.of(costs, counted).noise == 0


def test_costs_of_few_values_may_agree_by_chance(rng):
    costs = np.array([[0.0, 1.0], [1.0, 0.0]])[rng.integers(0, 2, (60, 80))]
    assert Restraint.of(costs).noise > 0.9
