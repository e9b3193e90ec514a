"""Labels that refiners keep: their pixels stay as the costs alone decide, in every solver."""

import numpy as np
import pytest

from hybridseg import CRF, DenseCRF, GridCRF, Scene
from hybridseg.inference.kept import kept_indices, marginals_with_kept, with_kept
from hybridseg.pairwise import BilateralKernel, GridTerm

CLASSES = np.array([3, 7, 9])
TERMS = [GridTerm(3.0, contrast=None)]
REFINERS = {
    "dense": lambda kept: DenseCRF(
        spatial_weight=4.0, spatial_width=2.0, bilateral_weight=4.0, kept_labels=kept
    ),
    "dense, auto": lambda kept: DenseCRF(kept_labels=kept),
    "grid": lambda kept: GridCRF(weight=4.0, kept_labels=kept),
    "regions": lambda kept: GridCRF(weight=4.0, on="regions", kept_labels=kept),
    "terms": lambda kept: CRF([*TERMS, BilateralKernel(4.0, 9.0, 20.0)], kept_labels=kept),
    "cuts": lambda kept: CRF(TERMS, solver="cuts", kept_labels=kept),
    "cuts of regions": lambda kept: CRF(
        [BilateralKernel(2.0, 9.0, 20.0)], solver="cuts", on="regions", kept_labels=kept
    ),
}


def scene(shape, seed=0, **given):
    """A noisy Scene whose label 9 is thin: single lines of pixels."""
    random = np.random.default_rng(seed)
    truth = (np.arange(shape[-1]) >= shape[-1] // 2).astype(int) + np.zeros(shape, int)
    truth[..., 3] = 2
    image = (60 * truth + random.integers(0, 20, shape)).astype(np.uint8)
    unary = np.where(np.eye(3, dtype=bool)[truth], 0.0, 1.0) + random.normal(0, 0.5, (*shape, 3))
    regions = np.arange(image.size).reshape(shape) // 3
    return Scene(
        image,
        unary.astype(np.float32),
        classes=CLASSES,
        regions=regions,
        spatial_ndim=len(shape),
        **given,
    )


def by_costs(made, by_region):
    """Return the labels by the costs alone, of pixels or of regions."""
    costs = made.unary
    if not by_region:
        return CLASSES[costs.argmin(axis=-1)]
    sums = np.zeros((made.regions.max() + 1, 3))
    np.add.at(sums, made.regions.ravel(), costs.reshape(-1, 3))
    return CLASSES[sums.argmin(axis=-1)][made.regions]


@pytest.mark.parametrize("shape", [(12, 15), (4, 6, 9)])
@pytest.mark.parametrize("name", REFINERS)
def test_the_pixels_of_kept_labels_stay_and_all_others_are_refined(name, shape):
    made = scene(shape)
    alone = by_costs(made, "regions" in name)
    free = REFINERS[name](None).predict([made])[0]
    found = REFINERS[name]([9]).predict([made])[0]
    np.testing.assert_array_equal(found == 9, alone == 9)
    both = REFINERS[name]([9, 3]).predict([made])[0]
    np.testing.assert_array_equal(both, alone)  # the third label has nothing to exchange with
    if name != "dense, auto":
        assert (free == 9).sum() < (alone == 9).sum()  # smoothing alone loses the thin label
        assert (found != alone).any()


@pytest.mark.parametrize("name", ["dense", "grid", "regions", "terms"])
def test_probabilities_with_kept_labels(name):
    made = scene((12, 15))
    before = made.proba
    if name == "regions":
        sums = np.zeros((made.regions.max() + 1, 3))
        np.add.at(sums, made.regions.ravel(), made.unary.reshape(-1, 3))
        rows = np.exp(sums.min(axis=1, keepdims=True) - sums)
        before = (rows / rows.sum(axis=1, keepdims=True))[made.regions]
    found = REFINERS[name]([9]).predict_proba([made])[0]
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    kept = before.argmax(axis=-1) == 2
    np.testing.assert_allclose(found[kept], before[kept], atol=1e-5)
    assert (found[~kept, 2] <= before[~kept, 2] + 1e-5).all()
    assert (found[~kept, 2] > 0).all()  # a probability and no certainty


def test_seeds_win_over_kept_labels():
    made = scene((12, 15))
    seeds = np.full((12, 15), -1)
    alone = by_costs(made, False)
    at = np.argwhere(alone == 9)[0], np.argwhere(alone != 9)[0]
    seeds[tuple(at[0])], seeds[tuple(at[1])] = 3, 9
    made = made.replace(seeds=seeds)
    for name in ("terms", "cuts"):
        found = REFINERS[name]([9]).predict([made])[0]
        assert found[tuple(at[0])] == 3
        assert found[tuple(at[1])] == 9
    proba = REFINERS["terms"]([9]).predict_proba([made])[0]
    np.testing.assert_allclose(proba[tuple(at[0])], [1, 0, 0], atol=1e-6)


def test_pixels_that_are_not_valid_remain_without_a_label():
    valid = np.ones((12, 15), bool)
    valid[:4] = False
    made = scene((12, 15))
    unary = made.unary.copy()
    unary[~valid] = np.nan
    masked = made.replace(unary=unary, valid=valid)
    found = REFINERS["dense"]([9]).predict([masked])[0]
    assert (found[~valid] == -1).all()
    np.testing.assert_array_equal(found[valid] == 9, by_costs(made, False)[valid] == 9)


def test_costs_that_keep_labels():
    costs = np.array([[0, 1, 2], [5, 4, 3]])
    cheapest = costs.argmin(axis=1)
    kept = with_kept(costs, [2], cheapest)
    assert kept.dtype == costs.dtype
    np.testing.assert_array_equal(kept == costs, [[True, True, False], [False, False, True]])
    assert (kept[kept != costs] > 1e6).all()
    assert with_kept(costs, [], cheapest) is costs
    empty = np.zeros((0, 3), np.float32)
    assert with_kept(empty, [1], empty.argmin(axis=1)).shape == (0, 3)


def test_marginals_without_kept_labels_are_returned_as_they_are():
    marginals = np.full((4, 3), 1 / 3, np.float32)
    assert marginals_with_kept(marginals, np.zeros((4, 3)), ()) is marginals


@pytest.mark.parametrize("kept", [[4], [9, 4], 9, [[9]]])
def test_labels_that_are_no_classes_are_refused(kept):
    with pytest.raises(ValueError, match=r"kept_labels=.*expected a list of values .*\[3, 7, 9\]"):
        kept_indices(kept, CLASSES)
