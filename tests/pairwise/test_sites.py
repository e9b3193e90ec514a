import numpy as np
import pytest

from hybridseg.pairwise import BilateralKernel, Energy, GridTerm, RegionTerm, Sites
from hybridseg.validation import Colors, as_colors


def test_colors_are_those_of_the_image_and_computed_once(rng):
    image = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    valid = rng.random((4, 5)) < 0.7
    sites = Energy(np.zeros((4, 5, 2)), image=image, valid=valid).sites
    assert isinstance(sites, Sites)
    np.testing.assert_array_equal(sites.colors, as_colors(image, valid=valid))
    assert sites.colors is sites.colors
    window = Energy(np.zeros((4, 5, 2)), image=image, intensity_range=(50, 100)).sites
    np.testing.assert_array_equal(window.colors, as_colors(image, intensity_range=(50, 100)))


def test_colors_may_be_given_as_they_are(rng):
    colors = rng.random((4, 5, 3), dtype=np.float32) * 300
    sites = Energy(np.zeros((4, 5, 2)), image=Colors(colors)).sites
    np.testing.assert_array_equal(sites.colors, colors)
    assert np.shares_memory(sites.colors, colors)
    turned = Energy(np.zeros((4, 5, 2)), image=Colors(colors[::-1])).sites
    np.testing.assert_array_equal(turned.colors, colors[::-1])
    assert turned.colors.flags.c_contiguous
    valid = rng.random((4, 5)) < 0.7
    masked = Energy(np.zeros((4, 5, 2)), image=Colors(colors), valid=valid).sites
    np.testing.assert_array_equal(masked.colors, np.where(valid[..., np.newaxis], colors, 0))


def test_regions_are_sites_with_known_pixels():
    regions = np.array([[0, 0, 1], [2, -1, 1]])
    valid = np.array([[True, False, True], [True, True, True]])
    sites = Energy(
        np.zeros((3, 4)), image=np.zeros((2, 3), np.uint8), regions=regions, valid=valid
    ).sites
    assert (sites.shape, sites.spatial_shape, sites.counted) == ((3,), (2, 3), None)
    np.testing.assert_array_equal(sites.regions, [[0, -1, 1], [2, -1, 1]])
    np.testing.assert_array_equal(regions, [[0, 0, 1], [2, -1, 1]])  # unchanged
    assert sites.spacing == (1.0, 1.0)


IMAGE = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unary": np.zeros((2, 3, 2)), "image": np.zeros((3, 2))}, r"unary has shape \(2, 3, 2\)"),
        ({"unary": np.zeros((4, 2)), "image": IMAGE}, r"With costs \(R, L\) of regions, pass"),
        ({"unary": np.zeros((2, 3, 2)), "regions": IMAGE}, r"one row for each region"),
        ({"unary": np.zeros((1, 2)), "regions": IMAGE + 4}, "regions holds the number 4"),
        ({"unary": np.zeros((4, 2)), "regions": IMAGE + 4}, "regions holds the number 4"),
        ({"unary": np.zeros((1, 2)), "regions": [0, 0]}, r"regions has shape \(2,\)"),
        ({"unary": np.zeros((1, 2)), "regions": IMAGE, "image": np.zeros((3, 3))}, "image has the"),
        ({"unary": np.zeros((2, 3, 2)), "valid": np.ones((3, 2), bool)}, "valid has shape"),
        ({"unary": np.zeros((2, 3, 2)), "spacing": (1.0, 2.0, 3.0)}, "spacing="),
        ({"unary": np.zeros((2, 3, 2)), "seeds": np.full((2, 3), 2)}, "seeds holds 2"),
    ],
)
def test_sites_that_do_not_fit_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Energy(**given)


def test_sites_check_their_image_themselves():
    def sites(shape, image, regions=None):
        return Sites.of(shape, image, "dtype", None, None, regions)

    assert sites((2, 3), IMAGE).shape == (2, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected that of unary, \(3, 2\)"):
        sites((3, 2), IMAGE)
    with pytest.raises(ValueError, match=r"expected that of the map regions, \(3, 2\)"):
        sites((1,), IMAGE, np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=r"these costs are for \(2,\) sites; pass regions=map"):
        sites((2,), IMAGE)


def test_colors_that_are_given_are_checked():
    with pytest.raises(ValueError, match="values holds NaN or infinite colors"):
        Colors(np.full((2, 3, 1), np.nan, np.float32))


@pytest.mark.parametrize("terms", [[GridTerm(1.0)], [RegionTerm(1.0)], [BilateralKernel(1, 9, 9)]])
@pytest.mark.parametrize("intensity_range", ["dtype", "image"])
def test_pixels_outside_of_all_regions_influence_nothing(rng, terms, intensity_range):
    regions = np.repeat(np.arange(4), 6).reshape(4, 6) - (np.arange(6) == 5)
    regions[:, 5] = -1
    image = rng.random((4, 6, 3)) / 2
    other = image.copy()
    other[:, 5] = [[1.0, 0.0, 1.0], [np.nan] * 3, [0.9] * 3, [np.inf] * 3]
    energies = [
        Energy(
            np.zeros((4, 2)), terms, image=each, regions=regions, intensity_range=intensity_range
        )
        for each in (image, other)
    ]
    labelings = list(np.ndindex(2, 2, 2, 2))
    first, second = ([energy.energy(labels) for labels in labelings] for energy in energies)
    assert first == second
    assert max(first) > 0
