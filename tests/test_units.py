"""No result depends on the unit of spacing if all lengths scale with it, and defaults do."""

import importlib
import tracemalloc
from functools import lru_cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from hybridseg import (
    DenseCRF,
    GraphCut,
    GridCRF,
    LevelSet,
    PixelClassifier,
    RandomWalker,
    Scene,
    SuperpixelClassifier,
)
from hybridseg.features import (
    ETPS,
    SLIC,
    Felzenszwalb,
    PixelFeatures,
    RegionFeatures,
    etps,
    felzenszwalb,
    gaussians,
    slic,
)
from hybridseg.inference import DenseModel, DynamicCut, graph_cut, mean_field, random_walker
from hybridseg.pairwise import dense_energy, dense_region_weights, grid_weights
from hybridseg.space import pixel_sides, width_in_pixels
from hybridseg.validation import as_colors

#: Factors between units: powers of two, degrees of a map, micrometers, inches, kilometers.
FACTORS = [2.0**-20, 2.0**12, 1e-6, 1e-4, 1e-3, 25.4, 1000.0, 1e5]
#: Slow functions are tested with fewer factors.
SLOW = {"PixelClassifier", "SuperpixelClassifier", "dense_energy"}
#: Uneven shapes, channels, and spacings without an exact binary value.
KINDS = {
    "gray": ((23, 34), 1, (0.7, 1.3)),
    "color": ((26, 31), 3, (1.3, 0.7)),
    "volume": ((6, 13, 15), 1, (2.1, 0.7, 0.9)),
}


@lru_cache
def problem(kind):
    """An image of two sides with noise, costs, seeds, and the spacing."""
    shape, n_channels, spacing = KINDS[kind]
    rng = np.random.default_rng(0)
    truth = np.broadcast_to(np.arange(shape[-1]) >= shape[-1] // 2, shape).astype(int)
    image = 70 + 90 * truth[..., np.newaxis] + rng.normal(0, 25, (*shape, n_channels))
    image = np.clip(image, 0, 255).astype(np.uint8)
    unary = np.where(np.eye(2, dtype=bool)[truth], 0.4, 1.1) + rng.normal(0, 0.4, (*shape, 2))
    seeds = np.full(shape, -1)
    seeds.flat[:: shape[-1] * 3 + 5] = truth.flat[:: shape[-1] * 3 + 5]
    return image, unary.astype(np.float32), seeds, truth, spacing


def in_unit(kind, factor):
    image, unary, seeds, truth, spacing = problem(kind)
    steps = tuple(step * factor for step in spacing)
    rank = len(steps)
    scene = Scene(image, unary, classes=[3, 5], spacing=steps, spatial_ndim=rank)
    return image, unary, seeds, truth, steps, scene


def colors_of(image, steps):
    return as_colors(image, spatial_ndim=len(steps))


def small_forest():
    return RandomForestClassifier(n_estimators=5, random_state=0)


def fitted(make):
    """A function that returns the predictions of a segmenter trained in the same unit."""

    def find(kind, factor):
        _, _, _, truth, _, scene = in_unit(kind, factor)
        plain = scene.replace(unary=None, classes=None)
        model = make(factor).fit([plain], [truth])
        found = model.predict([plain])
        return found + model.predict_proba([plain]) if hasattr(model, "predict_proba") else found

    return find


def refined(make):
    def find(kind, factor):
        model, scene = make(factor), in_unit(kind, factor)[-1]
        labels = model.predict([scene])
        return labels + model.predict_proba([scene]) if hasattr(model, "predict_proba") else labels

    return find


def of_image(function):
    """A function that returns ``function(image, steps, factor)``."""

    def find(kind, factor):
        image, _, _, _, steps, _ = in_unit(kind, factor)
        return [function(image, steps, factor)]

    return find


def _weights(image, steps, **options):
    found = grid_weights(image, spacing=steps, spatial_ndim=len(steps), **options)
    return np.concatenate([weight.ravel() for weight in found.values()])


def _regions(image, steps):
    return slic(image, 20, spacing=steps)


def _solved(solve):
    def find(kind, factor):
        image, unary, seeds, _, steps, _ = in_unit(kind, factor)
        return [solve(image, unary, seeds, steps, factor)]

    return find


def _dynamic(image, unary, seeds, steps, factor):
    weights = grid_weights(image, weight=0.5, spacing=steps, spatial_ndim=len(steps))
    return DynamicCut(weights).solve(unary, seeds=seeds).labels


def _graph_cut(image, unary, seeds, steps, factor):
    weights = grid_weights(image, connectivity=2, spacing=steps, spatial_ndim=len(steps))
    return graph_cut(unary, weights, seeds=seeds).labels


#: Calls with the defaults for all lengths.
DEFAULTS = {
    "slic": of_image(lambda image, steps, k: slic(image, 20, spacing=steps)),
    "slic in a mask": of_image(
        lambda image, steps, k: slic(
            image, 20, spacing=steps, valid=image[..., 0] > np.median(image)
        )
    ),
    "SLIC": of_image(lambda image, steps, k: SLIC(30)(image, spacing=steps)),
    "etps": of_image(lambda image, steps, k: etps(image, 20, spacing=steps)),
    "ETPS": of_image(lambda image, steps, k: ETPS(12)(image, spacing=steps)),
    "felzenszwalb": of_image(lambda image, steps, k: felzenszwalb(image, 50, spacing=steps)),
    "Felzenszwalb": of_image(lambda image, steps, k: Felzenszwalb(30)(image, spacing=steps)),
    "PixelFeatures": of_image(
        lambda image, steps, k: PixelFeatures()(colors_of(image, steps), spacing=steps)
    ),
    "RegionFeatures": of_image(
        lambda image, steps, k: RegionFeatures()(
            colors_of(image, steps), _regions(image, steps), spacing=steps
        )
    ),
    "grid_weights": of_image(lambda image, steps, k: _weights(image, steps)),
    "grid_weights of diagonals": of_image(
        lambda image, steps, k: _weights(image, steps, connectivity=2)
    ),
    "dense_region_weights": of_image(
        lambda image, steps, k: dense_region_weights(_regions(image, steps), image, spacing=steps)[
            2
        ]
    ),
    "random_walker": _solved(
        lambda image, unary, seeds, steps, k: random_walker(image, seeds, spacing=steps).labels
    ),
    "graph_cut": _solved(_graph_cut),
    "DynamicCut": _solved(_dynamic),
    "GraphCut": refined(lambda k: GraphCut()),
    "mean_field": _solved(
        lambda image, unary, seeds, steps, k: mean_field(unary, image, spacing=steps).marginals
    ),
    "DenseModel": _solved(
        lambda image, unary, seeds, steps, k: (
            DenseModel.of(image, spacing=steps, spatial_ndim=len(steps)).mean_field(unary).marginals
        )
    ),
    "dense_energy": _solved(
        lambda image, unary, seeds, steps, k: np.array(
            dense_energy(unary.argmin(axis=-1), unary, image, spacing=steps)
        )
    ),
    "DenseCRF": refined(lambda k: DenseCRF()),
    "GridCRF": refined(lambda k: GridCRF()),
    "LevelSet": refined(lambda k: LevelSet()),
    "RandomWalker": refined(lambda k: RandomWalker()),
    "PixelClassifier": fitted(lambda k: PixelClassifier(small_forest(), random_state=0)),
    "SuperpixelClassifier": fitted(
        lambda k: SuperpixelClassifier(small_forest(), superpixels=SLIC(30), random_state=0)
    ),
    "a pipeline": fitted(
        lambda k: make_pipeline(
            PixelClassifier(small_forest(), random_state=0), LevelSet(), GraphCut()
        )
    ),
    "gap_weights": lambda kind, k: [
        distance_maps().gap_weights(_cells(kind), spacing=in_unit(kind, k)[4])
    ],
}

#: Calls with all lengths, in the unit of spacing.
EXPLICIT = {
    "felzenszwalb": of_image(
        lambda image, steps, k: felzenszwalb(image, 50, sigma=1.1 * k, spacing=steps)
    ),
    "PixelFeatures": of_image(
        lambda image, steps, k: PixelFeatures(sigmas=(0.9 * k, 2.3 * k))(
            colors_of(image, steps), spacing=steps
        )
    ),
    "RegionFeatures": of_image(
        lambda image, steps, k: RegionFeatures(sigmas=[1.7 * k])(
            colors_of(image, steps), _regions(image, steps), spacing=steps
        )
    ),
    "dense_region_weights": of_image(
        lambda image, steps, k: dense_region_weights(
            _regions(image, steps), image, bilateral_width=11 * k, spacing=steps
        )[2]
    ),
    "mean_field": _solved(
        lambda image, unary, seeds, steps, k: (
            mean_field(
                unary, image, spatial_width=1.9 * k, bilateral_width=13 * k, spacing=steps
            ).marginals
        )
    ),
    "DenseModel": _solved(
        lambda image, unary, seeds, steps, k: (
            DenseModel.of(
                image,
                spatial_width=1.9 * k,
                bilateral_width=13 * k,
                spacing=steps,
                spatial_ndim=len(steps),
            )
            .mean_field(unary)
            .marginals
        )
    ),
    "dense_energy": _solved(
        lambda image, unary, seeds, steps, k: np.array(
            dense_energy(
                unary.argmin(axis=-1),
                unary,
                image,
                spatial_width=1.9 * k,
                bilateral_width=13 * k,
                spacing=steps,
            )
        )
    ),
    "DenseCRF": refined(lambda k: DenseCRF(spatial_width=1.9 * k, bilateral_width=13 * k)),
    "LevelSet": refined(lambda k: LevelSet(sigma=1.6 * k, edge_sigma=0.8 * k)),
    "PixelClassifier": fitted(
        lambda k: PixelClassifier(
            small_forest(), features=PixelFeatures(sigmas=(1.5 * k,)), random_state=0
        )
    ),
    "SuperpixelClassifier": fitted(
        lambda k: SuperpixelClassifier(
            small_forest(),
            superpixels=Felzenszwalb(40.0, sigma=1.2 * k, min_size=4),
            features=RegionFeatures(sigmas=(1.5 * k,)),
            random_state=0,
        )
    ),
    "gap_weights": lambda kind, k: [
        distance_maps().gap_weights(_cells(kind), sigma=3 * k, spacing=in_unit(kind, k)[4])
    ],
    "signed_distances": lambda kind, k: [
        distance_maps().signed_distances(problem(kind)[3], 2, spacing=in_unit(kind, k)[4]) / k
    ],
}


def distance_maps():
    pytest.importorskip("torch")
    return importlib.import_module("hybridseg.losses.distance_maps")


def _cells(kind):
    cells = np.zeros(KINDS[kind][0], int)
    cells[..., 2:5, 1:6], cells[..., 2:5, 8:12] = 1, 2
    return cells


@lru_cache
def as_given(group, name, kind):
    return {"defaults": DEFAULTS, "explicit": EXPLICIT}[group][name](kind, 1.0)


def assert_same(found, expected):
    """Compare integers exactly, and other numbers to the precision of float32."""
    assert len(found) == len(expected)
    for values, wanted in zip(found, expected, strict=True):
        if np.asarray(values).dtype.kind in "iu":
            np.testing.assert_array_equal(values, wanted)
        else:
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_do_not_depend_on_the_unit(name, kind):
    expected = as_given("defaults", name, kind)
    for factor in FACTORS[2::3] if name in SLOW else FACTORS:
        assert_same(DEFAULTS[name](kind, factor), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXPLICIT)
def test_lengths_in_another_unit_give_the_same(name, kind):
    expected = as_given("explicit", name, kind)
    for factor in FACTORS[2::3] if name in SLOW else FACTORS:
        assert_same(EXPLICIT[name](kind, factor), expected)


@pytest.mark.parametrize("spacing", [1e-6, 1e-4, 25.4, 1e5])
def test_one_number_for_all_axes_changes_nothing(spacing):
    """Square pixels give the same results at any size."""
    image, unary, seeds, _, _ = problem("color")
    scene = Scene(image, unary)
    for find in (slic, etps, felzenszwalb):
        np.testing.assert_array_equal(find(image, spacing=spacing), find(image))
    for refiner in (DenseCRF(), GraphCut(), GridCRF(), LevelSet(), RandomWalker()):
        found = refiner.predict([scene.replace(spacing=spacing)])[0]
        np.testing.assert_array_equal(found, refiner.predict([scene])[0])
    found = random_walker(image, seeds, spacing=spacing)
    np.testing.assert_array_equal(found.labels, random_walker(image, seeds).labels)
    colors = colors_of(image, (1, 1))
    np.testing.assert_array_equal(PixelFeatures()(colors, spacing), PixelFeatures()(colors))


def smooth_image(rng, shape):
    values = gaussian_filter(rng.normal(0, 1, shape), 4.0)
    return np.clip(128 + 50 * values / values.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("spacing", [(1e-4, 1e-4), (1e4, 1e4), (1e-3, 3e-3), (0.5, 0.1)])
def test_the_number_of_superpixels_does_not_depend_on_spacing(rng, spacing):
    image = smooth_image(rng, (60, 80, 3))
    for find in (slic, etps):
        assert 85 <= find(image, 100, spacing=spacing).max() + 1 <= 125


def test_an_axis_of_one_pixel_has_no_length(rng):
    plane = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    for find, options in ((slic, {}), (etps, {}), (felzenszwalb, {"sigma": 0.8})):
        for step in (1e-6, 1.0, 1e6):
            whole = find(plane[np.newaxis], **options, spacing=(step, 1.0, 1.0))
            np.testing.assert_array_equal(whole[0], find(plane, **options))


@pytest.mark.parametrize("spacing", [(100.0, 1.0), (1.0, 100.0)])
def test_pixels_longer_than_regions_are_regions_by_themselves(rng, spacing):
    """If the few rows are far apart, the columns determine the number of regions."""
    shape = (3, 400) if spacing[0] > 1 else (400, 3)
    image = smooth_image(rng, shape)
    assert etps(image, 120, spacing=spacing).max() + 1 == 120
    assert 90 <= slic(image, 120, spacing=spacing).max() + 1 <= 170


# --- Gaussians wider than the image ---


def wide_uses(width):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (150, 170, 3), dtype=np.uint8)
    unary = rng.normal(0, 1, (150, 170, 2)).astype(np.float32)
    colors = colors_of(image, (1, 1))
    scene = Scene(image, unary)
    yield "PixelFeatures", lambda: PixelFeatures(sigmas=(width,))(colors)
    yield "part", lambda: PixelFeatures(sigmas=(1.0, width)).part(colors, np.s_[5:9, 7:20])
    yield "RegionFeatures", lambda: RegionFeatures(sigmas=(width,))(colors, slic(image, 30))
    yield "felzenszwalb", lambda: felzenszwalb(image, sigma=width)
    yield (
        "felzenszwalb in a mask",
        lambda: felzenszwalb(image, sigma=width, valid=image[..., 0] > 9),
    )
    yield "LevelSet", lambda: LevelSet(sigma=width, edge_sigma=width).predict([scene])[0]


@pytest.mark.parametrize("width", [60.0, 1e3, 1e5, 1e9, 1e29])
def test_no_gaussian_takes_more_than_the_image(width):
    for name, compute in wide_uses(width):
        compute()  # compiles
        tracemalloc.start()
        try:
            found = compute()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert np.isfinite(found).all(), name
        assert most < 60e6, (name, most)


@pytest.mark.parametrize("shape", [(37, 53), (1, 40), (7, 5, 11), (64, 3, 1)])
def test_both_ways_to_filter_agree(rng, shape, monkeypatch):
    values = rng.normal(100, 40, shape).astype(np.float32)
    for width in (0.3, 2.0, 9.0, 25.0, 2.0 * min(shape)):
        widths = [width, width / 2, width][: len(shape)]
        expected = gaussian_filter(values, widths, truncate=3.0)
        for most in (0, 5, 10_000):
            monkeypatch.setattr(gaussians, "MAX_SUMMED_RADIUS", most)
            found = gaussians.smooth(values, widths, truncate=3.0)
            assert found.dtype == np.float32
            if width <= 2 * min(shape):
                np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_widest_gaussian_is_the_mean(rng):
    values = rng.normal(100, 40, (30, 41)).astype(np.float32)
    found = gaussians.smooth(values, [1e8, 1e300], truncate=3.0)
    np.testing.assert_allclose(found, values.mean(dtype=float), rtol=1e-6)
    rows = gaussians.smooth(values, [0.0, 1e8], truncate=3.0)
    np.testing.assert_allclose(
        rows, np.repeat(values.mean(axis=1, keepdims=True), 41, 1), rtol=1e-6
    )


# --- the rule itself ---


@pytest.mark.parametrize("factor", [*FACTORS, 1 / 3, 7.1e-9])
def test_sides_are_the_same_in_every_unit(factor):
    spacing = (2.5, 0.7, 1 / 3)
    scaled = tuple(step * factor for step in spacing)
    assert pixel_sides(scaled, 3) == pixel_sides(spacing, 3)
    assert min(pixel_sides(scaled, 3)) == 1.0
    one, other = (
        width_in_pixels(1.9 * k, "sigma", np.multiply(spacing, k), 3, auto=1.0)
        for k in (1.0, factor)
    )
    assert one == other


def test_auto_is_in_pixels_of_the_finest_axis(rng):
    colors = rng.integers(0, 256, (14, 17, 2)).astype(np.float32)
    spacing = (6e-4, 2e-4)
    np.testing.assert_allclose(
        PixelFeatures()(colors, spacing),
        PixelFeatures(sigmas=(2e-4, 4e-4, 8e-4, 16e-4))(colors, spacing),
        rtol=1e-6,
    )
    image = colors.astype(np.uint8)
    np.testing.assert_array_equal(
        felzenszwalb(image, spacing=spacing), felzenszwalb(image, sigma=1.6e-4, spacing=spacing)
    )
    scene = Scene(image, rng.normal(0, 1, (14, 17, 2)).astype(np.float32), spacing=spacing)
    (taken,) = LevelSet().parameters_for([scene])
    np.testing.assert_array_equal(
        LevelSet().predict([scene])[0],
        LevelSet(**taken, edge_sigma=2e-4).predict([scene])[0],
    )


@pytest.mark.parametrize("model", [PixelFeatures(), RegionFeatures(), Felzenszwalb(), LevelSet()])
def test_auto_survives_clone_and_set_params(model):
    names = [name for name, value in model.get_params().items() if value == "auto"]
    assert names
    assert clone(model).get_params() == model.get_params()
    for name in names:
        assert model.set_params(**{name: "auto"}).get_params()[name] == "auto"


@pytest.mark.parametrize(
    ("compute", "match"),
    [
        (lambda image: PixelFeatures(sigmas="wide")(image), "sigmas='wide'.*'auto'"),
        (lambda image: PixelFeatures(sigmas=2.0)(image), r"sigmas=2.0 is of type float.*\(2.0,\)"),
        (lambda image: PixelFeatures(sigmas=(1.0, 0.0))(image), "sigmas=0.0"),
        (lambda image: RegionFeatures(sigmas=("auto", 0))(image, np.zeros((9, 8), int)), "sigmas"),
        (lambda image: felzenszwalb(image, sigma="wide"), "sigma='wide'.*'auto'"),
        (lambda image: felzenszwalb(image, sigma=-1.0), "sigma=-1.0"),
        (lambda image: slic(image, spacing=(1e-9, 1e9)), "a factor of at most 1e\\+06"),
        (lambda image: felzenszwalb(image, sigma=1e300), "sigma=1e\\+300"),
        (
            lambda image: dense_region_weights(
                np.zeros((9, 8), int), image, bilateral_width="wide"
            ),
            "bilateral_width='wide'",
        ),
    ],
)
def test_numbers_that_are_no_lengths_are_refused(compute, match):
    with pytest.raises((TypeError, ValueError), match=match):
        compute(np.zeros((9, 8, 3), np.uint8))
