"""Costs of superpixels equal sums over pixels, on images, volumes, parts of images and regions."""

import numpy as np
import pytest

from hybridseg import CRF, Scene
from hybridseg.features import SLIC, slic
from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.pairwise import Energy, SuperpixelCliques


def cost_by_pixels(labels, superpixels, weight, truncation, exponent=1.0, factor=None):
    """The sum over superpixels, straight from the definition."""
    total = 0.0
    for k, number in enumerate(np.unique(superpixels[superpixels >= 0])):
        own = labels[superpixels == number]
        disagree = len(own) - np.bincount(own).max()
        slope = weight * len(own) ** (exponent - 1) * (1 if factor is None else factor[k])
        total += slope * min(disagree, truncation * len(own))
    return total


def cost_of(energy, labels):
    return energy.energy(labels) - energy.with_terms([]).energy(labels)


@pytest.mark.parametrize("shape", [(9, 14), (4, 5, 6), (1, 1), (1, 7)])
@pytest.mark.parametrize(("truncation", "exponent"), [(0.1, 1.0), (0.5, 0.8), (1.0, 1.0)])
def test_the_cost_is_that_of_the_definition(rng, shape, truncation, exponent):
    superpixels = rng.integers(-1, 5, shape)
    term = SuperpixelCliques(1.7, superpixels, truncation, exponent)
    energy = Energy(np.zeros((*shape, 3)), [term])
    for _ in range(5):
        labels = rng.integers(0, 3, shape)
        expected = cost_by_pixels(labels, superpixels, 1.7, truncation, exponent)
        assert energy.energy(labels) == pytest.approx(expected)


def test_colors_that_vary_lower_the_cost(rng):
    image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image[:, :4] = 90 + rng.integers(0, 9, (6, 4, 3))
    superpixels = np.indices((6, 8))[1] // 4
    colors = image.astype(float)
    variance = [
        ((colors[superpixels == k] - colors[superpixels == k].mean(axis=0)) ** 2).sum(axis=1).mean()
        for k in range(2)
    ]
    labels = rng.integers(0, 2, (6, 8))
    for contrast, sigma in ((40.0, 40.0), ("auto", np.sqrt(np.mean(variance)))):
        term = SuperpixelCliques(2.0, superpixels, 0.4, contrast=contrast)
        factor = np.exp(-np.array(variance) / (2 * sigma**2))
        found = Energy(np.zeros((6, 8, 2)), [term], image=image).energy(labels)
        expected = cost_by_pixels(labels, superpixels, 2.0, 0.4, factor=factor)
        assert found == pytest.approx(expected, rel=1e-5)
    flat = Energy(np.zeros((6, 8, 2)), [term], image=np.zeros((6, 8), np.uint8))
    expected = cost_by_pixels(labels, superpixels, 2.0, 0.4)
    assert flat.energy(labels) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(30, 44), (1, 1), (3, 4), (6, 10, 12)])
def test_superpixels_are_made_of_images_of_any_size(rng, shape):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    options = {"image": image, "spacing": tuple(range(1, len(shape) + 1))}
    default = Energy(np.zeros((*shape, 2)), [SuperpixelCliques(1.0)], **options)
    n = max(1, round(np.prod(shape) / 200))
    regions = slic(image, n, spacing=options["spacing"], spatial_ndim=len(shape))
    labels = rng.integers(0, 2, shape)
    expected = cost_by_pixels(labels, regions, 1.0, SuperpixelCliques().truncation)
    assert default.energy(labels) == pytest.approx(expected)
    many = [SLIC(4), lambda colors, spacing, intensity_range: np.zeros(colors.shape[:-1], int)]
    several = default.with_terms([SuperpixelCliques(1.0, many)])
    parts = [default.with_terms([SuperpixelCliques(1.0, each)]) for each in many]
    assert several.energy(labels) == pytest.approx(sum(part.energy(labels) for part in parts))


def test_only_valid_pixels_belong_to_superpixels(rng):
    image = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    valid = np.ones((20, 24), bool)
    valid[4:11, 3:15] = False
    labels = rng.integers(0, 2, (20, 24))
    for given in (None, SLIC(6), rng.integers(0, 5, (20, 24))):
        costs = []
        for junk in (0, 255):
            changed = np.where(valid[..., None], image, junk).astype(np.uint8)
            term = SuperpixelCliques(1.0, given, contrast=30.0)
            energy = Energy(np.zeros((20, 24, 2)), [term], image=changed, valid=valid)
            assert valid.ravel()[energy.cliques.site].all()
            assert energy.cliques.sizes.sum() == valid.sum()
            costs.append(energy.energy(np.where(valid, labels, junk % 2)))
        assert costs[0] == costs[1] > 0
    nothing = Energy(
        np.zeros((20, 24, 2)), [SuperpixelCliques()], image=image, valid=np.zeros((20, 24), bool)
    )
    assert len(nothing.cliques) == 0


def test_regions_have_the_cost_of_their_pixels(rng):
    image = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    regions = rng.integers(-1, 12, (8, 9))
    regions[0, :2] = [0, 11]
    for given in (rng.integers(0, 4, (8, 9)), SLIC(5), None):
        term = SuperpixelCliques(1.3, given, 0.6, contrast=50.0)
        on_regions = Energy(np.zeros((12, 3)), [term], image=image, regions=regions)
        on_pixels = Energy(np.zeros((8, 9, 3)), [term], image=image, valid=regions >= 0)
        for _ in range(5):
            labels = rng.integers(0, 3, 12)
            expected = on_pixels.energy(np.where(regions >= 0, labels[regions], 0))
            assert on_regions.energy(labels) == pytest.approx(expected)


def test_a_crf_removes_a_label_of_few_pixels_and_keeps_borders(rng):
    image = np.zeros((40, 60), np.uint8)
    image[:, 30:] = 200
    wanted = (image > 0).astype(int)
    logits = 2.0 * np.eye(2)[wanted]
    wrong = rng.random((40, 60)) < 0.05
    logits[wrong] = 2.0 * np.eye(2)[1 - wanted[wrong]]
    scene = Scene.from_logits(image, logits)
    for solver in ("mean_field", "cuts"):
        labels = CRF([SuperpixelCliques(3.0, truncation=0.3)], solver=solver).predict([scene])[0]
        assert (labels != wanted).mean() < 0.002 < wrong.mean()
    whole = SuperpixelCliques(3.0, np.zeros((40, 60), int), truncation=0.3)
    assert (CRF([whole], solver="cuts").predict([scene])[0] == scene.prediction).all()


def test_large_and_sparse_numbers_of_superpixels_are_allowed():
    numbers = np.array([[0, 0, 10**15, 10**15], [-7, -7, 10**15, 3]])
    found = Energy(np.zeros((2, 4, 2)), [SuperpixelCliques(1.0, numbers)]).cliques
    assert sorted(np.diff(found.first).tolist()) == [2, 3]


def test_the_result_is_that_of_one_solver_or_the_other_for_read_only_images(rng):
    image = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
    image.flags.writeable = False
    unary = rng.normal(0, 1, (12, 15, 3))
    energy = Energy(unary, [SuperpixelCliques(2.0, SLIC(6), 0.5)], image=image)
    cut, soft = solve_cuts(energy), solve_mean_field(energy)
    assert cut.lower_bound <= cut.energy <= energy.energy(soft.marginals.argmax(axis=-1)) + 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1.0}, "weight=-1.0"),
        ({"truncation": 0.0}, "truncation=0.0"),
        ({"truncation": 1.5}, "truncation=1.5"),
        ({"exponent": -1}, "exponent=-1"),
        ({"contrast": 0}, "contrast=0"),
        ({"superpixels": []}, "superpixels is an empty list"),
    ],
)
def test_bad_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        SuperpixelCliques(**change)


def test_bad_superpixels_are_named():
    costs = np.zeros((4, 5, 2))
    for given, message in (
        (np.zeros((5, 4), int), r"superpixels has shape \(5, 4\)"),
        (np.zeros((4, 5)), "superpixels has dtype float64"),
        ([[0, 0], [1, 1]], r"superpixels has shape \(2,\)"),
        (lambda colors, **_: np.zeros((2, 2), int), r"the result of superpixels=.*shape \(2, 2\)"),
    ):
        energy = Energy(costs, [SuperpixelCliques(1.0, given)], image=np.zeros((4, 5), np.uint8))
        with pytest.raises((TypeError, ValueError), match=message):
            energy.energy(np.zeros((4, 5), int))
    with pytest.raises(ValueError, match="image is None, but a term reads the image"):
        solve_cuts(Energy(costs, [SuperpixelCliques()]))
    with pytest.raises(ValueError, match="SuperpixelCliques needs the pixels of an image"):
        solve_cuts(Energy(costs.reshape(20, 2), [SuperpixelCliques()]))
