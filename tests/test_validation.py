"""Coercion accepts valid input, and its errors say what is wrong with other input."""

import warnings

import numpy as np
import pytest

from hybridseg.features import (
    PixelFeatures,
    RegionFeatures,
    etps,
    felzenszwalb,
    region_means,
    slic,
)
from hybridseg.inference import random_walker
from hybridseg.validation import (
    Colors,
    as_colors,
    as_costs,
    as_image,
    as_label_map,
    as_label_values,
    said_once,
)


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((4, 5), None, (4, 5, 1)),
        ((4, 5, 3), None, (4, 5, 3)),
        ((6, 4, 5), 3, (6, 4, 5, 1)),
        ((6, 4, 5, 2), None, (6, 4, 5, 2)),
    ],
)
def test_channel_axis(shape, rank, expected):
    assert as_image(np.zeros(shape), spatial_ndim=rank).shape == expected


def test_image_is_not_copied():
    image = np.zeros((4, 5))
    assert np.shares_memory(as_image(image), image)


@pytest.mark.parametrize(("shape", "rank"), [((4,), None), ((4, 5, 3), 4), ((2, 2, 2, 2, 2), None)])
def test_wrong_rank(shape, rank):
    with pytest.raises(ValueError, match="expected one image"):
        as_image(np.zeros(shape), spatial_ndim=rank)


def test_empty_image():
    with pytest.raises(ValueError, match="at least one pixel"):
        as_image(np.zeros((0, 5)))


@pytest.mark.parametrize("dtype", [bool, "u1", "u2", "i2", "f2", "f4", "f8", ">u2", ">f4"])
def test_full_range_of_each_dtype(dtype):
    kind = np.dtype(dtype)
    top = np.iinfo(kind).max if kind.kind in "ui" else 1
    low = np.iinfo(kind).min if kind.kind == "i" else 0
    colors = as_colors(np.array([[low, top]], dtype=dtype))
    assert colors.dtype == np.float32
    assert colors.dtype.isnative
    assert colors.ravel() == pytest.approx([0, 255], abs=1e-4)


@pytest.mark.parametrize("bad", ["auto", (1, 1), (2, 1), (0, np.inf), (1,), ("a", "b"), 3])
def test_bad_intensity_range(bad):
    with pytest.raises(ValueError, match="intensity_range="):
        as_colors(np.zeros((2, 2)), intensity_range=bad)


def test_colors_do_not_share_memory_with_the_image():
    image = np.zeros((3, 3, 1), np.float32)
    assert not np.shares_memory(as_colors(image, intensity_range=(0, 255)), image)


SQUARES = np.kron(np.arange(6).reshape(2, 3), np.ones((8, 8), int))
SEEDS = np.pad([[0]], ((0, 15), (0, 23)), constant_values=1) - (SQUARES % 2)
TAKERS = {
    "slic": lambda image: slic(image, 6),
    "etps": lambda image: etps(image, 6),
    "felzenszwalb": lambda image: felzenszwalb(image, 20.0),
    "random_walker": lambda image: random_walker(image, SEEDS).proba,
}


@pytest.mark.parametrize("name", TAKERS)
def test_colors_stand_for_the_image_that_they_were_made_of(rng, name):
    image = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    colors = Colors(as_colors(image))
    before = colors.values.copy()
    np.testing.assert_array_equal(TAKERS[name](colors), TAKERS[name](image))
    np.testing.assert_array_equal(colors.values, before)


@pytest.mark.parametrize(
    "describe",
    [
        lambda colors: PixelFeatures()(colors),
        lambda colors: RegionFeatures()(colors, SQUARES),
        lambda colors: region_means(colors, SQUARES),
    ],
)
def test_features_take_colors_as_arrays_and_as_colors(rng, describe):
    values = as_colors(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
    np.testing.assert_array_equal(describe(Colors(values)), describe(values))


def test_colors_are_checked_when_made_and_never_converted():
    with pytest.raises(ValueError, match="values holds NaN or infinite colors"):
        Colors(np.full((3, 4, 2), np.inf, np.float32))
    values = np.full((3, 4, 2), 777, np.float32)
    assert as_colors(Colors(values), intensity_range="image") is values
    assert as_colors(Colors(values), spatial_ndim=2) is values
    assert as_colors(Colors(values[:, ::2])).flags.c_contiguous
    with pytest.raises(ValueError, match="as spatial_ndim=3"):
        as_colors(Colors(values), spatial_ndim=3)


def test_colors_become_zero_where_not_valid_and_only_there(rng):
    values = rng.random((3, 4, 2), np.float32)
    valid = rng.random((3, 4)) < 0.6
    found = as_colors(Colors(values), valid=valid)
    np.testing.assert_array_equal(found, np.where(valid[..., None], values, 0))
    assert as_colors(Colors(values), valid=np.ones((3, 4), bool)) is values
    with pytest.raises(ValueError, match="valid has shape"):
        as_colors(Colors(values), valid=valid[:2])


def test_colors_read_as_an_array():
    colors = Colors(np.ones((3, 4, 2), np.float32))
    assert np.asarray(colors) is colors.values
    assert not np.shares_memory(np.array(colors), colors.values)
    assert np.asarray(colors, np.float64).dtype == np.float64


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (np.zeros((3, 4, 3)), TypeError, "values are float64; expected float32"),
        ([[[0.0]]], TypeError, "values are list; expected float32"),
        (np.zeros((3, 4), np.float32), ValueError, r"shape \(3, 4\); expected \(H, W, C\)"),
        (np.zeros((0, 4, 3), np.float32), ValueError, "shape"),
    ],
)
def test_colors_say_what_they_are_made_of(values, error, said):
    with pytest.raises(error, match=said):
        Colors(values)


def test_costs_keep_what_is_asked():
    assert as_costs(np.zeros((2, 2), np.float64)).dtype == np.float32
    assert as_costs(np.zeros((2, 2), np.float64), keep_double=True).dtype == np.float64
    assert as_costs(np.zeros((2, 2), np.int32), keep_integer=True).dtype == np.int64
    assert as_costs(np.zeros((2, 2), np.float16)).dtype == np.float32


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0)])
def test_bad_costs(shape):
    with pytest.raises(ValueError, match="expected costs"):
        as_costs(np.zeros(shape))


def test_label_map_maps_every_void():
    labels = np.array([[-5, 255], [3, 0]], np.int16)
    assert np.array_equal(as_label_map(labels, ignore_label=255), [[-1, -1], [3, 0]])
    assert labels[0, 0] == -5
    assert np.array_equal(as_label_map(np.array([[True, False]])), [[1, 0]])


@pytest.mark.parametrize("value", ["255", 1.5, True, 10**30])
def test_ignored_labels_are_integers(value):
    with pytest.raises((TypeError, ValueError), match="ignore_label="):
        as_label_map(np.zeros((2, 2), int), ignore_label=value)


def test_ranges_of_any_size_are_scaled():
    unit = np.linspace(0, 1, 12).reshape(3, 4)
    expected = as_colors(unit)
    for scale in (1e-310, 1e-200, 1e-40, 1.0, 1e39, 1e200, 1e307):
        found = as_colors(unit * scale, intensity_range="image")
        np.testing.assert_allclose(found, expected, atol=1e-3 if scale > 1e-300 else 1)
        window = as_colors(unit * scale, intensity_range=(0, min(scale, 1e300)))
        assert np.isfinite(window).all()
    assert as_colors(np.array([[-1e308, 0.0, 1e308]]), intensity_range=(0, 1)).max() == 255
    with pytest.raises(ValueError, match="image holds values from -1e.308 to 1e.308, whose"):
        as_colors(np.array([[-1e308, 1e308]]), intensity_range="image")


RNG = np.random.default_rng(0)
#: Images that use a small part of the range of their dtype.
SQUASHED = {
    "CT": RNG.integers(-1024, 3072, (40, 50)).astype(np.int16),
    "CT with metal": np.where(np.arange(2000).reshape(40, 50) == 7, 30000, 100)
    + RNG.integers(-1000, 1000, (40, 50)).astype(np.int16),
    "12 bits": RNG.integers(0, 4096, (40, 50, 3)).astype(np.uint16),
    "14 bits": RNG.integers(0, 2**14, (40, 50)).astype(np.uint16),
    "8 bits in 16": RNG.integers(0, 256, (40, 50)).astype(np.int16),
    "12 bits as floats": RNG.integers(0, 4096, (40, 50)) / 65535,
    "diffusivities": RNG.uniform(0, 0.003, (40, 50)).astype(np.float32),
    "a volume": RNG.integers(0, 1000, (9, 40, 50)).astype(np.uint16),
}
#: Images that cause no warning.
QUIET = {
    "16 bits": RNG.integers(0, 65536, (40, 50)).astype(np.uint16),
    "black": np.zeros((40, 50), np.uint16),
    "black with read noise": RNG.integers(0, 5, (40, 50)).astype(np.uint16),
    "air": RNG.integers(-1003, -997, (40, 50)).astype(np.int16),
    "one value": np.full((40, 50), 700, np.int16),
    "a wall with noise": RNG.normal(0.01, 0.0001, (40, 50)),
    "black floats": RNG.normal(0, 1e-9, (40, 50)),
    "a dark photograph": RNG.integers(0, 12, (40, 50, 3)).astype(np.uint8),
    "a dark photograph as floats": RNG.integers(0, 40, (40, 50, 3)) / 255,
    "a mask": RNG.random((40, 50)) < 0.5,
}


@pytest.mark.parametrize("name", SQUASHED)
def test_use_of_a_small_part_of_the_range_warns(name):
    image = SQUASHED[name].astype(np.int16) if name == "CT with metal" else SQUASHED[name]
    rank = 3 if name == "a volume" else None
    with pytest.warns(UserWarning, match="uses less than 1/.*Pass intensity_range=") as said:
        as_colors(image, spatial_ndim=rank)
    assert len(said) == 1
    assert said[0].filename == __file__
    for cure in ("image", (float(image.min()), float(image.max()))):
        as_colors(image, spatial_ndim=rank, intensity_range=cure)


@pytest.mark.parametrize("name", QUIET)
def test_usual_images_are_read_in_silence(name):
    assert np.isfinite(as_colors(QUIET[name])).all()


def test_only_valid_pixels_determine_the_range():
    image = np.where(np.arange(50) < 25, 4000, 60000) + RNG.integers(0, 3000, (40, 50))
    valid = np.broadcast_to(np.arange(50) < 25, (40, 50))
    as_colors(image.astype(np.uint16))
    with pytest.warns(UserWarning, match="uses less than 1/16 of the range of uint16"):
        as_colors(image.astype(np.uint16), valid=valid)


def test_equal_warnings_are_given_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with said_once():
            for image in (SQUASHED["CT"], SQUASHED["CT"] + 1):
                as_colors(image)
        as_colors(SQUASHED["CT"])
    assert len(said) == 2


def test_floats_may_leave_their_range_by_rounding_and_no_further():
    for bad in (np.array([[0.0, 1.002]]), np.array([[-0.002, 1.0]])):
        with pytest.raises(ValueError, match=r"intensity_range='dtype' expects floats in \[0, 1\]"):
            as_colors(bad)
    assert as_colors(np.array([[-0.0009, 1.0009]])).shape == (1, 2, 1)


def test_costs_fit_the_image_or_a_hint_is_given(rng):
    costs = rng.random((3, 4, 5)).astype(np.float32)
    assert as_costs(costs, spatial_shape=(3, 4)) is costs
    with pytest.raises(ValueError, match=r"expected \(4, 5, L\)\. The labels seem to come first"):
        as_costs(costs, spatial_shape=(4, 5))
    with pytest.raises(ValueError, match=r"expected \(4, 5, L\)\. This seems to be a batch of"):
        as_costs(costs[np.newaxis], spatial_shape=(4, 5))
    with pytest.raises(ValueError, match=r"expected \(4, 5, L\)\.$"):
        as_costs(np.stack([costs, costs]), spatial_shape=(4, 5))


def test_label_values_are_sorted_and_none_is_negative():
    assert as_label_values([5, 0, 3]).tolist() == [0, 3, 5]
    for bad in ([0], [0, 0, 1], [-1, 0], [[0, 1]]):
        with pytest.raises(ValueError, match="expected at least two different label values"):
            as_label_values(bad)
    with pytest.raises(ValueError, match="contains ignore_label=3; remove it"):
        as_label_values([0, 3], ignore_label=3)
    with pytest.raises(TypeError, match="expected integers"):
        as_label_values([0.0, 1.0])


def test_windows_and_constant_images_are_scaled_as_they_say():
    image = np.array([[2.0, 4.0, 6.0, 99.0]])
    found = as_colors(image, intensity_range=(2, 6)).ravel()
    np.testing.assert_allclose(found, [0, 127.5, 255, 255])
    flat = as_colors(np.full((2, 3), 7.5), intensity_range="image")
    np.testing.assert_array_equal(flat, 0)


@pytest.mark.parametrize("intensity_range", ["image", (1, 5), (-100, 100)])
def test_colors_are_zero_where_not_valid_under_every_range(intensity_range):
    image = np.array([[1.0, 5.0, 3.0, 99.0, np.nan]])
    valid = np.array([[True, True, True, False, False]])
    found = as_colors(image, intensity_range=intensity_range, valid=valid).ravel()
    low, high = (1, 5) if intensity_range == "image" else intensity_range
    expected = [255 * (value - low) / (high - low) for value in (1, 5, 3)]
    np.testing.assert_allclose(found, [*expected, 0, 0], rtol=1e-6)
    assert not as_colors(image, intensity_range=intensity_range, valid=~valid & False).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("intensity_range", ["dtype", "image", (0, 1)])
def test_pixels_that_are_not_finite_are_counted_and_located(bad, intensity_range):
    image = np.zeros((3, 4, 2))
    image[1, 2, 0] = image[2, 0, 1] = bad
    with pytest.raises(ValueError, match=r"holds 2 NaN or .* \(the first at \(1, 2, 0\)\)"):
        as_colors(image, intensity_range=intensity_range)


def test_a_warning_begins_at_a_quarter_of_16_bits_and_a_sixteenth_of_floats():
    for high, dtype in [(16383, np.uint16), (1 / 16, np.float64)]:
        with pytest.warns(UserWarning, match="uses less than"):
            as_colors(np.array([[0, high]], dtype))
    for high, dtype in [(16384, np.uint16), (1 / 16 + 1e-6, np.float64)]:
        as_colors(np.array([[0, high]], dtype))


@pytest.mark.parametrize(
    ("dtype", "plain", "double", "integer"),
    [
        ("f2", "f4", "f4", "f4"),
        ("f4", "f4", "f4", "f4"),
        ("f8", "f4", "f8", "f4"),
        (">f8", "f4", "f8", "f4"),
        ("i8", "f4", "f4", "i8"),
        ("u1", "f4", "f4", "i8"),
        ("?", "f4", "f4", "i8"),
    ],
)
def test_costs_are_float32_unless_doubles_or_integers_are_kept(dtype, plain, double, integer):
    costs = np.ones((3, 2), dtype)
    assert as_costs(costs).dtype == np.dtype(plain)
    assert as_costs(costs, keep_double=True).dtype == np.dtype(double)
    assert as_costs(costs, keep_integer=True).dtype == np.dtype(integer)


@pytest.mark.parametrize("shape", [(1, 5, 3, 4), (5, 3, 4)])
def test_a_hint_about_axes_needs_the_rest_of_the_shape_to_fit(shape):
    with pytest.raises(ValueError, match=r"expected \(4, 5, L\)\.$"):
        as_costs(np.zeros(shape), spatial_shape=(4, 5))


def test_integers_beyond_64_bits_with_a_sign_are_refused():
    most = 2**63 - 1
    fits = np.array([[0, most]], np.uint64)
    assert as_label_map(fits)[0, 1] == most
    assert as_costs(fits, keep_integer=True)[0, 1] == most
    assert as_label_values(fits[0]).tolist() == [0, most]
    for call in (as_label_map, as_costs, lambda beyond: as_label_values(beyond[0])):
        with pytest.raises(ValueError, match=f"holds {most + 1}; expected at most {most}"):
            call(fits + np.uint64(1))


def test_label_maps_hold_integers_and_have_the_shape_of_their_image():
    with pytest.raises(TypeError, match=r"truth has dtype float64; expected integers"):
        as_label_map(np.zeros((4, 5)), name="truth")
    with pytest.raises(ValueError, match=r"labels has shape \(4, 5\), but its image has \(5, 4\)"):
        as_label_map(np.zeros((4, 5), int), shape=(5, 4))


@pytest.mark.parametrize("window", [(1, 255), (0, 254), (0, 255), (-255, 0), (1e-3, 1.0)])
def test_a_window_is_mapped_to_the_whole_scale(window):
    low, high = window
    image = np.array([[low, (low + high) / 2, high]])
    found = as_colors(image, intensity_range=window).ravel()
    np.testing.assert_allclose(found, [0, 127.5, 255], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, bool])
def test_a_label_map_may_be_empty(dtype):
    assert as_label_map(np.zeros((0, 5), dtype)).shape == (0, 5)


def test_the_rank_that_was_asked_for_is_named():
    with pytest.raises(
        ValueError, match=r"expected one image \(D, H, W\[, C\]\) with spatial_ndim=3"
    ):
        as_image(np.zeros((4, 5)), spatial_ndim=3)
    with pytest.raises(ValueError, match=r"expected one image \(H, W\[, C\]\)\.$"):
        as_image(np.zeros(4))
