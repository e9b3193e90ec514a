"""Chan-Vese equals scikit-image's, iteration by iteration."""

import numpy as np
import pytest
from skimage import data, segmentation

from hybridseg.inference import chan_vese, graph_cut
from hybridseg.inference.contours.chan_vese import length_and_costs


@pytest.mark.parametrize("init", ["checkerboard", "disk", "small disk", "array"])
def test_chan_vese_equals_scikit_image(init):
    image = data.camera()[::4, ::3]
    if init == "array":
        init = np.random.default_rng(0).normal(0, 2, image.shape)
    for n_iter in (1, 2, 25):
        labels, level_set, energies = segmentation.chan_vese(
            image, mu=0.2, lambda1=1.2, max_num_iter=n_iter, init_level_set=init,
            extended_output=True,
        )  # fmt: skip
        found = chan_vese(image, mu=0.2, lambda1=1.2, max_iter=n_iter, init=init)
        np.testing.assert_allclose(found.level_set, level_set, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.energies[:-1], energies, rtol=1e-11)
        assert found.n_iter == len(energies)


def test_chan_vese_stops_where_scikit_image_stops():
    image = data.coins()[:100, :120]
    expected = segmentation.chan_vese(image, tol=5e-3, extended_output=True)
    found = chan_vese(image, tol=5e-3)
    assert found.converged
    assert found.n_iter == len(expected[2]) < 500
    assert found.energies[-1] < found.energies[0]
    inside = image[found.labels == 1].mean() - image.min()
    assert found.means[1] == pytest.approx(inside / np.ptp(image))


def test_without_a_tolerance_it_never_stops_early():
    flat = np.zeros((6, 7))
    found = chan_vese(flat, tol=0, max_iter=40)
    assert (found.n_iter, found.converged, len(found.energies)) == (40, False, 41)
    assert chan_vese(flat, max_iter=400).n_iter < 400
    with pytest.warns(FutureWarning, match="n_iter=3 is now called max_iter"):
        assert chan_vese(flat, tol=0, n_iter=3).n_iter == 3


def test_chan_vese_in_float32_is_close():
    image = data.coins()
    double, single = (chan_vese(image, max_iter=20, dtype=t) for t in (np.float64, np.float32))
    assert single.level_set.dtype == np.float32
    np.testing.assert_allclose(single.level_set, double.level_set, atol=1e-3)
    assert np.count_nonzero(single.labels != double.labels) <= 1e-4 * image.size
    np.testing.assert_allclose(single.energies, double.energies, rtol=1e-5)
    assert chan_vese(image.astype(np.float32), max_iter=1).level_set.dtype == np.float32


def test_chan_vese_without_energy_finds_the_same():
    image = data.coins()[:60, :70]
    with_it, without = (chan_vese(image, max_iter=5, with_energy=e) for e in (True, False))
    np.testing.assert_array_equal(with_it.level_set, without.level_set)
    assert (len(with_it.energies), without.energies) == (6, ())


# --- costs in place of the image ---


def two_regions(noise, shape=(60, 75)):
    """The noisy cost of label 1 minus that of label 0, and the truth: a disk and a corner."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(shape)
    truth = (np.hypot(rows - 28, columns - 30) < 18) | ((columns > 58) & (rows > 40))
    return np.where(truth, -2, 2) + rng.normal(0, noise, shape), truth


def energy_of(labels, ahead, mu):
    """The costs plus ``mu`` times the length, measured by crossings of lines (Crofton)."""
    inside = labels.astype(float)
    straight = sum(abs(np.diff(inside, axis=axis)).sum() for axis in (0, 1))
    oblique = abs(inside[1:, 1:] - inside[:-1, :-1]).sum()
    oblique += abs(inside[1:, :-1] - inside[:-1, 1:]).sum()
    return ahead[labels].sum() + mu * np.pi / 8 * (straight + oblique / np.sqrt(2))


@pytest.mark.parametrize("mu", [1.0, 4.0])
@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_costs_and_length_come_near_the_least_energy(noise, mu):
    """The minimum cut is exact for these crossings; at most an eighth of the gap to it is left."""
    ahead, truth = two_regions(noise)
    height, width = ahead.shape
    straight, oblique = mu * np.pi / 8, mu * np.pi / 8 / np.sqrt(2)
    weights = {
        (0, 1): np.full((height, width - 1), straight),
        (1, 0): np.full((height - 1, width), straight),
        (1, 1): np.full((height - 1, width - 1), oblique),
        (1, -1): np.full((height - 1, width - 1), oblique),
    }
    cut = graph_cut(np.stack([0 * ahead, ahead], axis=-1), weights).labels == 1
    found = length_and_costs(ahead, mu, 100)
    least, start = (energy_of(labels, ahead, mu) for labels in (cut, ahead < 0))
    assert least <= energy_of(found, ahead, mu) < least + 0.125 * (start - least)
    assert (found == truth).mean() > (cut == truth).mean() - 0.005


def test_costs_and_length_treat_both_labels_and_both_axes_alike():
    ahead, _ = two_regions(2.0)
    found = length_and_costs(ahead, 2.0, 30)
    np.testing.assert_array_equal(length_and_costs(-ahead, 2.0, 30), ~found)
    np.testing.assert_array_equal(length_and_costs(ahead[::-1], 2.0, 30), found[::-1])
    np.testing.assert_array_equal(length_and_costs(ahead.T.copy(), 2.0, 30), found.T)
    np.testing.assert_array_equal(length_and_costs(1e3 * ahead, 0.0, 30), ahead < 0)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_costs_of_any_size_stay_finite(size):
    ahead, truth = two_regions(0.5)
    found = length_and_costs(np.float32(size) * ahead.astype(np.float32), size, 30)
    assert found.dtype == bool
    if size >= 1:
        assert (found == truth).mean() > 0.99
