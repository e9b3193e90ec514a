"""The random walker equals dense solves and scikit-image, and obeys its laws in odd cases."""

import numba
import numpy as np
import pytest
from skimage import segmentation

from hybridseg.inference import RandomWalkerResult, random_walker
from tests.oracles.laplacian import random_walker as oracle


def problem(rng, shape, channels=3, n_labels=3, n_seeds=4, noise=60):
    """An image of two halves with noise, and some seeds of each label."""
    image = np.full((*shape, channels), 70.0)
    image[..., shape[-1] // 2 :, :] = 170
    image = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    seeds = np.full(shape, -1)
    places = rng.permutation(seeds.size)[: n_labels * n_seeds]
    seeds.flat[places] = np.arange(len(places)) % n_labels
    return image, seeds


def scikit_image(image, seeds, **options):
    many = image.ndim > seeds.ndim
    options |= {"mode": "bf", "return_full_prob": True, "channel_axis": -1 if many else None}
    return np.moveaxis(segmentation.random_walker(image, seeds + 1, **options), 0, -1)


CASES = [((1, 12), 1), ((9, 1), 2), ((7, 9), 3), ((24, 31), 1), ((26, 23), 3), ((4, 6, 7), 1)]
CASES += [((1, 8, 9), 1), ((9, 8, 10), 2), ((2, 20, 21), 1)]


@pytest.mark.parametrize("beta", [0.0, 130.0, 1500.0])
@pytest.mark.parametrize(("shape", "channels"), CASES)
def test_equals_the_dense_solution(rng, shape, channels, beta):
    image, seeds = problem(rng, shape, channels, n_seeds=1 if min(shape) == 1 else 3)
    spacing = (2.0, 1.0, 0.5)[: len(shape)]
    found = random_walker(image, seeds, beta=beta, spacing=spacing)
    everywhere = np.ones(shape, bool)
    expected = oracle.random_walker(image / 255, seeds, beta, spacing, everywhere)
    assert isinstance(found, RandomWalkerResult)
    assert found.converged
    assert np.abs(found.proba - expected).max() < 1e-4
    best = expected.max(axis=-1)
    taken = np.take_along_axis(expected, found.labels[..., np.newaxis], -1)[..., 0]
    assert np.all(taken > best - 1e-4)


@pytest.mark.parametrize("shape", [(61, 83), (12, 21, 19)])
def test_agrees_with_scikit_image(rng, shape):
    image, seeds = problem(rng, shape, noise=15)
    found = random_walker(image, seeds, tol=1e-8)
    assert np.abs(found.proba - scikit_image(image, seeds)).max() < 1e-5
    assert found.residual < 1e-6
    gray = image[..., 0] / 255
    found = random_walker(gray, seeds, beta=400, tol=1e-8)
    assert np.abs(found.proba - scikit_image(gray, seeds, beta=400)).max() < 1e-5


def test_laws(rng):
    """Probabilities lie in [0, 1] and sum to one; seeds are certain; at most ``tol`` is lost."""
    image, seeds = problem(rng, (40, 50), n_labels=5)
    found = random_walker(image, seeds)
    assert found.proba.shape == (40, 50, 5)
    assert found.proba.min() >= 0
    assert found.proba.max() <= 1
    assert np.abs(found.proba.sum(axis=-1) - 1).max() < 1e-6
    seeded = seeds >= 0
    assert np.array_equal(found.proba[seeded], np.eye(5)[seeds[seeded]])
    assert np.array_equal(found.labels[seeded], seeds[seeded])
    # maximum principle: no probability exceeds those of all its neighbors, except at seeds
    padded = np.pad(found.proba, ((1, 1), (1, 1), (0, 0)), constant_values=-1)
    around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    assert np.all((found.proba <= np.max(around, axis=0) + 1e-5)[~seeded])


def test_iterations_do_not_grow_with_the_image(rng):
    counts = []
    for size in (32, 64, 128, 256):
        image = rng.integers(100, 130, (size, size)).astype(np.uint8)
        seeds = np.full((size, size), -1)
        seeds[0, 0], seeds[-1, -1] = 0, 1
        found = random_walker(image, seeds, beta=10)
        assert found.converged
        counts.append(found.n_iter)
    assert max(counts) <= counts[0] + 6
    assert max(counts) <= 16


def test_labels_keep_their_values(rng):
    image, seeds = problem(rng, (15, 16))
    values = np.array([7, 2, 40])
    found = random_walker(image, np.where(seeds >= 0, values[seeds], -5))
    plain = random_walker(image, seeds)
    assert found.classes.tolist() == [2, 7, 40]
    assert found.proba == pytest.approx(plain.proba[..., [1, 0, 2]], abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_commute(rng, axis):
    image, seeds = problem(rng, (20, 27))
    flipped = random_walker(np.flip(image, axis), np.flip(seeds, axis), tol=1e-8).proba
    straight = random_walker(image, seeds, tol=1e-8).proba
    assert np.flip(flipped, axis) == pytest.approx(straight, abs=1e-5)


def test_valid(rng):
    """Invalid pixels are walls, whatever their values, and cut-off parts have no label."""
    image, seeds = problem(rng, (14, 18), n_seeds=2)
    colors = image / 255
    valid = rng.random((14, 18)) > 0.25
    valid[:, 9] = False
    seeds[:, 9:] = -1  # the right part has no seed
    colors[~valid] = np.nan
    found = random_walker(colors, seeds, valid=valid)
    expected = oracle.random_walker(np.nan_to_num(colors), seeds, 130, (1, 1), valid)
    unknown = np.isnan(expected[..., 0])
    assert unknown[:, 9:].all()
    assert (found.labels[unknown] == -1).all()
    assert found.proba[unknown] == pytest.approx(1 / found.proba.shape[-1])
    assert np.abs(found.proba - expected)[~unknown].max() < 1e-4
    assert (found.labels[~unknown] >= 0).all()


def test_one_label_and_nothing_to_do(rng):
    image, seeds = problem(rng, (6, 7))
    one = random_walker(image, np.where(seeds == 1, 3, -1))
    assert np.all(one.labels == 3)
    assert np.all(one.proba == 1)
    assert one.converged
    full = random_walker(image, np.full((6, 7), 2))
    assert np.all(full.labels == 2)
    halves = np.indices((6, 7))[0] % 2
    assert np.array_equal(random_walker(image, halves).labels, halves)
    assert random_walker(np.zeros((1, 1)), [[4]]).labels.tolist() == [[4]]


def test_constant_image_is_a_plain_walk():
    seeds = np.full((1, 5), -1)
    seeds[0, 0], seeds[0, 4] = 0, 1
    found = random_walker(np.full((1, 5), 7, np.uint8), seeds)
    assert found.proba[0, :, 0] == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)


def test_walled_island_is_solved(rng):
    """A part with links of 1e-10 takes the probabilities of its surroundings."""
    image = np.zeros((31, 33))
    image[10:13, 12:20] = 1.0
    seeds = np.full((31, 33), -1)
    seeds[0, 0], seeds[30, 32] = 0, 1
    found = random_walker(image, seeds, beta=2000)
    expected = oracle.random_walker(
        image[..., np.newaxis], seeds, 2000, (1, 1), np.ones((31, 33), bool)
    )
    assert np.abs(found.proba - expected).max() < 1e-4


def test_stops_at_the_tolerance_or_after_max_iter(rng):
    image, seeds = problem(rng, (30, 30))
    found = random_walker(image, seeds, max_iter=1, tol=1e-12)
    assert (found.n_iter, found.converged) == (1, False)
    assert found.residual > 0
    closer = random_walker(image, seeds, tol=1e-10)
    assert closer.residual < found.residual
    assert closer.converged


def test_threads_do_not_matter(rng):
    image, seeds = problem(rng, (300, 310))
    before, found = numba.get_num_threads(), []
    for n in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(n)
        found.append(random_walker(image, seeds).proba)
    numba.set_num_threads(before)
    assert np.array_equal(*found)


def test_input_is_not_changed(rng):
    image, seeds = problem(rng, (9, 10))
    kept = image.copy(), seeds.copy()
    image.setflags(write=False)
    seeds.setflags(write=False)
    random_walker(image, seeds, valid=np.ones((9, 10), bool))
    assert np.array_equal(image, kept[0])
    assert np.array_equal(seeds, kept[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": np.full((4, 5), -1)}, "seeds holds no label"),
        ({"seeds": np.zeros((4, 5))}, "seeds has dtype"),
        ({"seeds": np.zeros((5, 4), int)}, "seeds has shape"),
        ({"image": np.full((4, 5), np.nan)}, "NaN"),
        ({"image": np.zeros((4, 5)) + 9}, "intensity_range"),
        ({"beta": -1}, "beta"),
        ({"tol": 0}, "tol"),
        ({"max_iter": -1}, "max_iter"),
        ({"spacing": (1, 0)}, "spacing"),
        ({"valid": np.ones((4, 4), bool)}, "valid"),
        ({"valid": np.zeros((4, 5), bool)}, "seeds holds no label"),
    ],
)
def test_bad_input(changes, message):
    seeds = np.full((4, 5), -1)
    seeds[0, 0] = 1
    with pytest.raises((TypeError, ValueError), match=message):
        random_walker(**({"image": np.zeros((4, 5)), "seeds": seeds} | changes))


# --- with a prior ---


def dense_with_prior(image, seeds, prior, weight, beta, spacing):
    """The minimum of the energy of Grady (2005), label by label, by a dense solve."""
    shape, n = seeds.shape, seeds.size
    sides = np.array(spacing) / min(spacing)
    scale = beta / (10 * image.std() * np.sqrt(image.shape[-1])) / 255
    numbers = np.arange(n).reshape(shape)
    matrix = np.eye(n) / weight
    for axis in range(len(shape)):
        one, other = (np.delete(numbers, end, axis=axis).ravel() for end in (-1, 0))
        rows = image.reshape(n, -1)
        w = np.exp(-scale * ((rows[one] - rows[other]) ** 2).sum(1) / sides[axis] ** 2) + 1e-10
        np.add.at(matrix, (one, one), w)
        np.add.at(matrix, (other, other), w)
        np.add.at(matrix, (one, other), -w)
        np.add.at(matrix, (other, one), -w)
    unknown, flat = (seeds < 0).ravel(), seeds.ravel()
    found = np.eye(prior.shape[-1])[np.maximum(flat, 0)]
    right = prior.reshape(n, -1) / weight - matrix[:, ~unknown] @ found[~unknown]
    found[unknown] = np.linalg.solve(matrix[np.ix_(unknown, unknown)], right[unknown])
    return found.reshape(prior.shape)


@pytest.mark.parametrize("weight", [1e-3, 0.5, 20.0, 1e4])
@pytest.mark.parametrize(("shape", "channels"), [((1, 12), 1), ((11, 14), 3), ((4, 6, 7), 2)])
def test_a_prior_equals_the_dense_solution(rng, shape, channels, weight):
    image, seeds = problem(rng, shape, channels, n_seeds=1)
    prior = rng.dirichlet(np.ones(3), shape)
    spacing = (2.0, 1.0, 0.5)[: len(shape)]
    options = {"prior": prior, "weight": weight, "beta": 90.0, "spacing": spacing, "tol": 1e-9}
    for known in (seeds, np.full(shape, -1)):
        expected = dense_with_prior(image.astype(float), known, prior, weight, 90.0, spacing)
        found = random_walker(image, known, **options)
        np.testing.assert_allclose(found.proba, expected, atol=1e-5)
        assert found.converged
        assert found.classes.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(random_walker(image, None, **options).proba, found.proba)


def test_a_prior_stays_without_weight_and_becomes_one_with_the_most(rng):
    image, prior = np.full((7, 9), 5, np.uint8), rng.dirichlet(np.ones(4), (7, 9))
    found = random_walker(image, None, prior=prior, weight=0.0)
    np.testing.assert_allclose(found.proba, prior, atol=1e-7)
    found = random_walker(image, None, prior=prior, weight=1e6)
    assert found.converged
    mean = np.broadcast_to(prior.mean(axis=(0, 1)), prior.shape)
    np.testing.assert_allclose(found.proba, mean, atol=1e-3)


def test_a_prior_is_not_looked_at_where_not_valid(rng):
    image, seeds = problem(rng, (12, 15))
    prior, valid = rng.dirichlet(np.ones(3), (12, 15)), np.ones((12, 15), bool)
    valid[:, 6] = valid[2:5, 9:] = False
    expected = random_walker(image, seeds, prior=prior, valid=valid)
    prior[~valid], image[~valid], seeds[~valid] = np.nan, 255, 2
    found = random_walker(image, seeds, prior=prior, valid=valid)
    np.testing.assert_array_equal(found.proba, expected.proba)
    np.testing.assert_array_equal(found.labels == -1, ~valid)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "seeds=None and prior=None"),
        ({"prior": np.ones((4, 5, 2))}, "sums over the last axis range from 2 to 2"),
        ({"prior": np.full((4, 5, 2), [-0.5, 1.5])}, "the minimum -0.5"),
        ({"prior": np.full((4, 5, 2), np.nan)}, "expected probabilities"),
        ({"prior": np.full((5, 4, 2), 0.5)}, "prior has shape"),
        ({"prior": np.full((4, 5, 2), 0.5), "weight": 1e7}, "weight=1"),
        ({"prior": np.full((4, 5, 2), 0.5), "weight": -1}, "weight=-1"),
        ({"prior": np.full((4, 5, 2), 0.5), "seeds": np.full((4, 5), 2)}, "the label 2, but"),
    ],
)
def test_bad_priors_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        random_walker(np.zeros((4, 5)), **({"seeds": None} | options))
