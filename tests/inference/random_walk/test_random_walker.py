"""The random walker: against dense solves, its laws, its peer, and its odd cases."""

import numba
import numpy as np
import pytest
from skimage import segmentation

from hybridseg.inference import RandomWalkerResult, random_walker
from tests.oracles.laplacian import random_walker as oracle


def problem(rng, shape, channels=3, n_labels=3, n_seeds=4, noise=60):
    """A picture of two halves with noise, and some seeds of each label."""
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
    grey = image[..., 0] / 255
    found = random_walker(grey, seeds, beta=400, tol=1e-8)
    assert np.abs(found.proba - scikit_image(grey, seeds, beta=400)).max() < 1e-5


def test_laws(rng):
    """Probabilities lie in [0, 1] and sum to one; seeds are certain; at most ``tol`` is lost."""
    image, seeds = problem(rng, (40, 50), n_labels=5)
    found = random_walker(image, seeds)
    assert found.proba.shape == (40, 50, 5)
    assert found.proba.min() >= 0
    assert found.proba.max() <= 1
    assert np.abs(found.proba.sum(axis=-1) - 1).max() < 1e-12
    seeded = seeds >= 0
    assert np.array_equal(found.proba[seeded], np.eye(5)[seeds[seeded]])
    assert np.array_equal(found.labels[seeded], seeds[seeded])
    # maximum principle: no probability is greater than all its neighbours', but for seeds'
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
    """Invalid pixels are walls, whatever they hold, and cut-off parts have no label."""
    image, seeds = problem(rng, (14, 18), n_seeds=2)
    colors = image / 255
    valid = rng.random((14, 18)) > 0.25
    valid[:, 9] = False
    seeds[:, 9:] = -1  # nobody to meet on the right
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
    """A part that hangs on by weights of 1e-10 takes the probabilities of what is around it."""
    image = np.zeros((31, 33))
    image[10:13, 12:20] = 1.0
    seeds = np.full((31, 33), -1)
    seeds[0, 0], seeds[30, 32] = 0, 1
    found = random_walker(image, seeds, beta=2000)
    expected = oracle.random_walker(
        image[..., np.newaxis], seeds, 2000, (1, 1), np.ones((31, 33), bool)
    )
    assert np.abs(found.proba - expected).max() < 1e-4


def test_stops_when_told(rng):
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


def test_input_is_left_alone(rng):
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
