"""Coercion keeps what is good, and says what is wrong with the rest."""

import numpy as np
import pytest

from hybridseg.validation import (
    as_colors,
    as_costs,
    as_image,
    as_label_map,
    as_mask,
    as_spacing,
    check_number,
    check_option,
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


def test_mask():
    assert as_mask(np.array([[0, 1]]), (1, 2)).dtype == bool
    with pytest.raises(TypeError, match="expected a mask of booleans"):
        as_mask(np.array([[0.5, 1]]), (1, 2))


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


@pytest.mark.parametrize(
    ("spacing", "expected"), [(None, (1, 1)), (2.5, (2.5, 2.5)), ([1, 3], (1, 3))]
)
def test_spacing(spacing, expected):
    assert as_spacing(spacing, 2) == expected


@pytest.mark.parametrize("spacing", [(1, 2, 3), (1, 0), (1, -1), (1, np.nan)])
def test_bad_spacing(spacing):
    with pytest.raises(ValueError, match="expected 2 positive numbers"):
        as_spacing(spacing, 2)


def test_numbers():
    assert check_number(3, "n", minimum=0, integer=True) == 3
    assert check_number(np.float32(0.5), "x", minimum=0, strict=True) == 0.5
    with pytest.raises(TypeError, match="n=2.5 is of type float; expected an integer"):
        check_number(2.5, "n", integer=True)
    with pytest.raises(TypeError, match="expected a number"):
        check_number(True, "n")
    with pytest.raises(ValueError, match=r"x=0; expected a number > 0"):
        check_number(0, "x", minimum=0, strict=True)
    with pytest.raises(ValueError, match=r">= 0 and <= 1"):
        check_number(float("nan"), "x", minimum=0, maximum=1)


def test_options():
    assert check_option("a", "mode", ["a", "b"]) == "a"
    with pytest.raises(ValueError, match="mode='c'; expected one of 'a', 'b'"):
        check_option("c", "mode", ["a", "b"])
