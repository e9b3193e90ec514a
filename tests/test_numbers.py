"""Finite numbers that overflow float32 or int64 are refused with their name, or summed exactly."""

from fractions import Fraction

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.features import region_labels, region_means, region_sums, slic
from hybridseg.inference import (
    DenseModel,
    DynamicCut,
    chan_vese,
    graph_cut,
    grid_mean_field,
    mean_field,
    morphological_chan_vese,
)
from hybridseg.metrics import (
    boundary_iou,
    boundary_recall,
    confusion_table,
    expected_calibration_error,
    iou_per_class,
    mean_iou,
)
from hybridseg.pairwise import (
    FeatureKernel,
    GaussianKernel,
    as_compatibility,
    dense_energy,
    energy,
    grid_weights,
    region_weights,
)
from hybridseg.scene.costs import costs_from_logits, costs_from_proba, proba_from_costs

SHAPE = (5, 6)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
LABELS = np.arange(30).reshape(SHAPE) % 3
UNARY = np.random.default_rng(1).normal(0, 1, (*SHAPE, 3))
PROBA = np.full((*SHAPE, 3), 1 / 3)
WEIGHTS = [np.ones((4, 6)), np.ones((5, 5))]


def one(value, good=UNARY):
    """An array with one entry ``value``, in the widest type that can hold it."""
    array = good.astype(np.longdouble if isinstance(value, np.longdouble) else np.float64)
    array.flat[3] = value
    return array


def model(**options):
    return DenseModel.of(IMAGE, **options)


@pytest.mark.parametrize("value", [1e39, -1e39, 1e308, np.longdouble("1e4000"), np.nan, np.inf])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("unary", lambda x: mean_field(one(x), IMAGE)),
        ("init", lambda x: mean_field(UNARY, IMAGE, init=one(x, PROBA))),
        ("features", lambda x: mean_field(UNARY, IMAGE, kernels=[FeatureKernel(1, one(x))])),
        ("unary", lambda x: model().mean_field(one(x))),
        ("unary", lambda x: grid_mean_field(one(x), WEIGHTS)),
        ("weights", lambda x: grid_mean_field(UNARY, [one(abs(x), WEIGHTS[0]), WEIGHTS[1]])),
        ("logits", lambda x: Scene.from_logits(IMAGE, one(x))),
        ("proba", lambda x: Scene.from_proba(IMAGE, one(x, PROBA))),
        ("logits", lambda x: costs_from_logits(one(x))),
        ("proba", lambda x: costs_from_proba(one(x, PROBA))),
        ("colors", lambda x: region_means(one(x), LABELS)),
        ("values", lambda x: region_sums(one(x), LABELS)),
        ("proba", lambda x: expected_calibration_error(LABELS, one(x, PROBA))),
        ("compatibility", lambda x: mean_field(UNARY, IMAGE, compatibility=one(x, np.eye(3)))),
        (
            "compatibility",
            lambda x: energy(LABELS, UNARY, WEIGHTS, compatibility=one(x, np.eye(3))),
        ),
    ],
)
def test_arrays_beyond_float32_are_named(name, call, value):
    with pytest.raises(ValueError, match=name):
        call(value)


@pytest.mark.parametrize("value", [1e39, 1e308, 10**40, 10**400, np.longdouble("1e4000")])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("bilateral_weight", lambda x: mean_field(UNARY, IMAGE, bilateral_weight=x)),
        ("spatial_width", lambda x: dense_energy(LABELS, UNARY, IMAGE, spatial_width=x)),
        ("bilateral_color", lambda x: model(bilateral_color=x)),
        ("spatial_weight", lambda x: model().mean_field(UNARY, spatial_weight=x)),
        ("weight", lambda x: GaussianKernel(x, width=1.0)),
        ("weight", lambda x: grid_weights(IMAGE, weight=x)),
        ("compactness", lambda x: slic(IMAGE, 4, x)),
        ("strength", lambda x: DynamicCut(WEIGHTS).solve(UNARY[..., :2], strength=x)),
        ("tolerance", lambda x: boundary_recall(LABELS, LABELS, tolerance=x)),
        ("dilation_ratio", lambda x: boundary_iou(LABELS, LABELS, dilation_ratio=x)),
        ("spacing", lambda x: slic(IMAGE, 4, spacing=(x, 1))),
        ("spacing", lambda x: grid_weights(IMAGE, spacing=[1, x])),
        ("sample_weight", lambda x: mean_iou([LABELS] * 2, [LABELS] * 2, sample_weight=[x, 1])),
        ("intensity_range", lambda x: mean_field(UNARY, IMAGE, intensity_range=(0, x))),
    ],
)
def test_numbers_beyond_float32_are_named(name, call, value):
    if name == "intensity_range" and value in (1e39, 10**40):
        pytest.skip("a window may be so wide; the image is black in it")
    with pytest.raises((TypeError, ValueError), match=name):
        call(value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_numbers_of_any_width_are_the_same_numbers(dtype):
    found = mean_field(UNARY, IMAGE, bilateral_weight=dtype(2), spatial_width=dtype(2)).marginals
    expected = mean_field(UNARY, IMAGE, bilateral_weight=2.0, spatial_width=2.0).marginals
    np.testing.assert_allclose(found, expected, atol=1e-6)
    strong = grid_weights(IMAGE, weight=dtype(2), contrast=dtype(30))
    for offset, array in grid_weights(IMAGE, weight=2.0, contrast=30.0).items():
        np.testing.assert_allclose(strong[offset], array, rtol=1e-3)
    assert np.array_equal(slic(IMAGE, 4, dtype(10)), slic(IMAGE, 4, 10.0))


def test_costs_at_the_end_of_float32_are_impossible_labels():
    """A label that costs 3e38 is never chosen, and no result becomes NaN."""
    greatest = float(np.finfo(np.float32).max)
    for low in (0.0, -greatest):
        unary = np.where(np.eye(3)[LABELS] > 0, low, greatest)
        for found in (
            mean_field(unary, IMAGE).marginals,
            model().mean_field(unary).marginals,
            grid_mean_field(unary, WEIGHTS).marginals,
            mean_field(unary[..., :2], IMAGE, n_iter=0).marginals,
        ):
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(mean_field(unary, IMAGE).marginals.argmax(-1), LABELS)
        assert np.isfinite(proba_from_costs(unary.astype(np.float32))).all()


def test_logits_of_any_size_give_costs_that_solvers_take():
    scene = Scene.from_logits(IMAGE, one(-3e38, one(3e38)))
    assert np.isfinite(scene.unary).all()
    assert np.isfinite(mean_field(scene.unary, IMAGE).marginals).all()


@pytest.mark.parametrize("seed", range(3))
def test_whole_energies_are_exact_beyond_64_bits(seed):
    rng = np.random.default_rng(seed)
    unary = rng.integers(-(2**62), 2**62, (*SHAPE, 3))
    weights = [rng.integers(0, 2**62, w.shape) for w in WEIGHTS]
    matrix = rng.integers(-(2**40), 2**40, (3, 3))
    matrix = matrix + matrix.T
    prices = rng.integers(0, 2**62, 3)
    total = sum(int(unary[p][label]) for p, label in np.ndenumerate(LABELS))
    total += sum(int(prices[label]) for label in np.unique(LABELS))
    potts = total
    for axis, weight in enumerate(weights):
        for p, w in np.ndenumerate(weight):
            a, b = LABELS[p], LABELS[tuple(np.add(p, np.eye(2, dtype=int)[axis]))]
            total += int(w) * int(matrix[a, b])
            potts += int(w) * int(a != b)
    found = energy(LABELS, unary, weights, compatibility=matrix, label_costs=prices)
    assert found == float(Fraction(total))
    assert energy(LABELS, unary, weights, label_costs=prices) == float(Fraction(potts))


def test_real_energies_beyond_64_bits_are_refused():
    great = np.full((*SHAPE, 2), 1e308)
    for call in (
        lambda: energy(LABELS.clip(0, 1), great, WEIGHTS),
        lambda: graph_cut(great, WEIGHTS),
        lambda: graph_cut(np.full((*SHAPE, 3), 1e308), WEIGHTS),
        lambda: DynamicCut(WEIGHTS).solve(great),
    ):
        with pytest.raises(ValueError, match="whose sum overflows float64; divide"):
            call()


def test_whole_weights_times_whole_factors_do_not_wrap():
    weights = [np.full(w.shape, 2**40) for w in WEIGHTS]
    unary = np.zeros((*SHAPE, 2), int)
    factor = (1 - np.eye(2, dtype=int)) * 2**40
    with pytest.raises(ValueError, match="overflow int64; pass floats"):
        graph_cut(unary, weights, compatibility=factor)
    with pytest.raises(ValueError, match=r"compatibility holds the integer .*2\*\*53"):
        as_compatibility(factor * 2**22, 2)
    with pytest.raises(ValueError, match="overflows int64"):
        energy(LABELS, UNARY, [WEIGHTS[0], np.full((5, 5), 2**63, np.uint64)])


def test_empty_weights_are_named():
    with pytest.raises(ValueError, match="weights is an empty mapping; expected .offset: array"):
        energy(LABELS, UNARY, {})
    for weights in ([], ()):
        with pytest.raises(TypeError, match="weights holds 0 items; expected a list of 2 arrays"):
            graph_cut(UNARY, weights)
    for weights in ([], {}):
        with pytest.raises(TypeError, match="weights is a .*; expected one array .* It is empty"):
            DynamicCut(weights)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        mean_iou([LABELS], [LABELS], sample_weight=[])


@pytest.mark.parametrize("n_labels", ["x", None, 2.5, True, 0, -1, 10**6, 10**30])
def test_numbers_of_labels_are_checked(n_labels):
    with pytest.raises((TypeError, ValueError), match="n_labels="):
        as_compatibility("potts", n_labels)
    with pytest.raises((TypeError, ValueError), match="n_labels="):
        as_compatibility(np.zeros((2, 2)), n_labels)


def test_reaches_beyond_the_image_are_the_whole_image():
    other = np.zeros(SHAPE, int)
    other[0, 0] = 1
    whole = boundary_recall(LABELS, other, width=99)
    assert boundary_recall(LABELS, other, tolerance=1e30) == whole
    assert boundary_recall(LABELS, other, width=2**62) == whole
    assert boundary_iou(LABELS, other, dilation_ratio=1e30) == mean_iou(LABELS, other)
    assert boundary_iou(LABELS, other, width=2**62) == mean_iou(LABELS, other)


def test_labels_of_any_size_are_told_apart():
    """Filters compute in float64, which cannot distinguish 2**60 from 2**60 + 1."""
    truth, found = LABELS, np.roll(LABELS, 1, axis=0)
    expected = boundary_iou(truth, found, width=1), iou_per_class(truth, found).tolist()
    for add in (2**60, 2**63 - 3):
        assert boundary_iou(truth + add, found + add, width=1) == expected[0]
        assert iou_per_class(truth + add, found + add).tolist() == expected[1]


def test_a_contrast_with_a_square_of_zero_stops_at_every_edge():
    image = np.zeros((3, 4))
    image[:, 2:] = 1e-3
    weights = grid_weights(image, contrast=1e-200, intensity_range=(0, 1))[0, 1]
    assert weights.tolist() == [[1, 0, 1]] * 3


@pytest.mark.parametrize(
    "proba",
    [np.full((*SHAPE, 3), 0.5), np.full((*SHAPE, 3), -1 / 3), np.full((*SHAPE, 3), 1e300)],
)
def test_calibration_refuses_values_that_are_no_probabilities(proba):
    with pytest.raises(ValueError, match=r"proba\[0\] has the minimum .*expected probabilities"):
        expected_calibration_error(LABELS, proba)
    void = np.full(SHAPE, -1)
    void[0, 0], proba = 0, proba.copy()
    proba[0, 0] = [1, 0, 0]
    assert expected_calibration_error(void, proba) == 0  # void pixels may have any values


def test_weights_of_tables_are_checked():
    table = confusion_table(LABELS, LABELS)
    for weight in (np.nan, np.inf, -1.0, 1e39):
        with pytest.raises(ValueError, match="weight="):
            _ = table * weight
    with pytest.raises(TypeError, match="weight='x'"):
        _ = table * "x"
    with pytest.raises(ValueError, match="sample_weight holds 1e.308; expected at most"):
        mean_iou([LABELS], [LABELS], sample_weight=[1e308])


def test_mean_colors_are_checked():
    from hybridseg.features import region_graph

    graph = region_graph(LABELS)
    for bad in (np.nan, np.inf, 1e39):
        with pytest.raises(ValueError, match="colors holds"):
            region_weights(graph, np.full((3, 2), bad))
    with pytest.raises(TypeError, match="graph is a list; expected a RegionGraph"):
        region_weights([(0, 1)], np.zeros((3, 2)))
    heavy = region_graph(np.repeat(np.arange(2), 1 << 20).reshape(2, -1))
    with pytest.raises(
        ValueError, match="expected at most 1e.36, so that sums stay within float32"
    ):
        region_weights(heavy, np.zeros((2, 3)), weight=1e30)
    regions = np.where(LABELS == 0, -1, LABELS - 1)
    colors = np.where(LABELS == 0, np.nan, 1.0)
    assert region_means(colors, regions).tolist() == [[1], [1]]  # pixels outside may be NaN
    with pytest.raises(ValueError, match="n_regions="):
        region_labels(LABELS, LABELS, 2**40)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1].copy()[::-1]])
def test_level_sets_start_from_any_layout(layout):
    """Kernels read rows; arrays in column order were once silently read as another start."""
    gray = IMAGE[..., 0] / 255
    init = np.linspace(-1, 1, 30).reshape(SHAPE) + gray
    for call, options in ((chan_vese, {"max_iter": 4}), (morphological_chan_vese, {"n_iter": 4})):
        expected = call(gray, **options, init=init)
        found = call(layout(gray), **options, init=layout(init))
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_level_sets_refuse_squares_beyond_floats():
    for great, dtype in ((1e30, np.float32), (1e300, np.float64)):
        image = np.full(SHAPE, great, dtype)
        image[0] = -great
        with pytest.raises(ValueError, match="image holds a number of size 1e.*300?; expected"):
            morphological_chan_vese(image, 3)


def test_masks_of_arrays_are_not_dropped():
    """Every function that would lose the mask of a masked array refuses it."""
    unary = np.ma.masked_greater(UNARY, 1.0)
    for call in (
        lambda: mean_field(unary, IMAGE),
        lambda: energy(LABELS, unary, WEIGHTS),
        lambda: region_means(np.ma.masked_greater(IMAGE, 99), LABELS),
        lambda: mean_field(UNARY, IMAGE, compatibility=np.ma.masked_equal(np.eye(3), 1)),
    ):
        with pytest.raises((TypeError, ValueError), match="is a masked array"):
            call()
