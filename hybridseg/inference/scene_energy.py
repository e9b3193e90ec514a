"""From a Scene to an energy (costs, seeds, regions), and from labels of regions back to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.features.regions import region_labels
from hybridseg.inference.kept import kept_indices, marginals_with_kept, with_kept
from hybridseg.inference.restraint import Restraint
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.pairwise.energy import Energy
from hybridseg.scene.costs import RegionCosts, costs_from_proba, proba_from_costs
from hybridseg.validation import (
    Colors,
    as_costs,
    as_label_map,
    as_mask,
    as_numbers,
    as_singles,
    only_valid,
)


def scene_energy(
    scene: Scene,
    terms: Sequence[Any],
    *,
    on: str = "pixels",
    compatibility: str | ArrayLike = "potts",
    label_costs: ArrayLike | None = None,
    seeded: bool = False,
    unary_weight: float = 1.0,
    label_bias: ArrayLike | None = None,
    kept_labels: ArrayLike | None = None,
) -> Energy:
    """Return the energy of a Scene with these terms, on its pixels or on its regions.

    The costs of a region are the sums over its pixels. Its seed is the most frequent seed in it.
    The costs of a pixel are multiplied with ``unary_weight``, and ``label_bias`` (L,) is added. The
    costs as they come decide which pixels get one of ``kept_labels``, which are values of classes.

    Raises
    ------
    TypeError, ValueError
        The parts of the Scene do not fit, or it has no regions with ``on="regions"``.
    """
    valid = _valid(scene)
    costs = valid_costs(scene, valid)
    unary = _weighted(costs, unary_weight, label_bias)
    seeds = seed_indices(scene, valid) if seeded else None
    regions = None
    if on == "regions":
        regions = regions_of(scene, valid)
        n_regions = int(regions.max()) + 1
        if n_regions == 0:
            raise ValueError(
                "regions has no region at a valid pixel, so there is nothing to label; use "
                "on='pixels'."
            )
        unary = _sums(unary, regions, n_regions)
        seeds = None if seeds is None else region_labels(regions, seeds, n_regions)[0]
    kept = kept_indices(kept_labels, scene.classes)
    if kept:
        unary = with_kept(unary, kept, _on_sites(costs, regions).argmin(axis=-1))
    return Energy(
        unary,
        terms,
        image=Colors(scene.colors),
        compatibility=compatibility,
        label_costs=label_costs,
        seeds=seeds,
        valid=valid,
        spacing=scene.spacing,
        regions=regions,
    )


def without_certainties(
    scene: Scene,
    marginals: NDArray[np.float32],
    kept_labels: ArrayLike | None,
    regions: NDArray[np.int64] | None = None,
    seeds: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return marginals of sites that were found with ``kept_labels``, as probabilities.

    Marginals at seeds remain as they are.
    """
    kept = kept_indices(kept_labels, scene.classes)
    if not kept:
        return marginals
    costs = _on_sites(valid_costs(scene, _valid(scene)), regions)
    found = marginals_with_kept(marginals, costs, kept)
    if seeds is not None:
        found[seeds >= 0] = marginals[seeds >= 0]
    return found


def _on_sites(costs: NDArray[Any], regions: NDArray[np.int64] | None) -> NDArray[Any]:
    """Return the costs of pixels, or their sums over regions."""
    return costs if regions is None else _sums(costs, regions, int(regions.max()) + 1)


def _sums(costs: NDArray[Any], regions: NDArray[np.int64], n_regions: int) -> NDArray[Any]:
    numbers = regions.ravel().astype(np.int32)
    sums: NDArray[Any] = sums_and_counts(costs.reshape(-1, costs.shape[-1]), numbers, n_regions)[0]
    return sums


def _weighted(costs: NDArray[Any], weight: float, label_bias: ArrayLike | None) -> NDArray[Any]:
    """Return ``weight * costs + label_bias``, as float32 unless nothing changes."""
    if weight == 1 and label_bias is None:
        return costs
    changed = costs * np.float32(weight)
    if label_bias is None:
        return changed
    return changed + as_label_bias(label_bias, costs.shape[-1])


def as_label_bias(label_bias: ArrayLike, n_labels: int) -> NDArray[np.float32]:
    """Return the bias (L,) of the labels, checked."""
    bias = as_singles(as_numbers(label_bias, "label_bias"), "label_bias")
    if bias.shape != (n_labels,):
        raise ValueError(
            f"label_bias has shape {bias.shape}; expected ({n_labels},): a cost for each label."
        )
    return bias


def part_of(energy: Energy, box: Box, terms: Sequence[Any]) -> Energy:
    """Return the energy of a box of the image, with other terms."""
    if all(side == slice(0, n) for side, n in zip(box, energy.shape, strict=True)):
        return energy.with_terms(terms)
    return Energy(
        np.ascontiguousarray(energy.unary[box]),
        terms,
        image=Colors(np.ascontiguousarray(energy.sites.colors[box])),
        compatibility=energy.compatibility,
        label_costs=energy.label_costs,
        seeds=None if energy.seeds is None else energy.seeds[box],
        valid=None if energy.valid is None else energy.valid[box],
        spacing=energy.spacing,
    )


def restraint_of(energy: Energy) -> Restraint:
    """Return the bounds that the costs set for a refiner, where no seed decides the label."""
    if energy.regions is None:
        decided = decided_by_costs(energy.sites.counted, energy.seeds)
        return Restraint.of(energy.unary, decided)
    sizes = np.bincount(energy.regions.ravel() + 1, minlength=1 + len(energy.unary))[1:]
    free = None if energy.seeds is None else energy.seeds < 0
    return Restraint.of_regions(energy.unary, sizes, free)


def valid_costs(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return the costs ``(*spatial, L)``, with 0 at pixels that are not valid."""
    return as_costs(only_valid(scene.unary, valid), spatial_shape=scene.shape)


def seed_indices(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
    """Return the seeds as indices into the classes, -1 where unknown or not valid."""
    if scene.seeds is None:
        return None
    values = as_label_map(
        scene.seeds, shape=scene.shape, ignore_label=scene.ignore_label, name="seeds"
    )
    if valid is not None:
        values[~valid] = -1
    classes = np.asarray(scene.classes)
    matches = values[..., np.newaxis] == classes
    unknown = (values >= 0) & ~matches.any(axis=-1)
    if bool(unknown.any()):
        raise ValueError(
            f"seeds holds the label {values[unknown][0]}; expected one of the classes "
            f"{classes.tolist()}, or a negative number where unknown."
        )
    return np.where(values >= 0, matches.argmax(axis=-1), -1)


def decided_by_costs(
    valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
) -> NDArray[np.bool_] | None:
    """Return the mask of valid pixels without a seed; None if these are all pixels."""
    if seeds is None:
        return valid
    return seeds < 0 if valid is None else (seeds < 0) & valid


def regions_of(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the Scene's region map, numbered without gaps; -1 outside of all regions."""
    regions = _given_regions(scene, valid)
    largest = int(regions.max(initial=-1))
    if largest < 2 * regions.size:  # a table is quicker than sorting
        occurs = np.bincount(regions.ravel() + 1, minlength=largest + 2) > 0
        occurs[0] = False
        numbers = np.cumsum(occurs) - 1
        numbers[0] = -1
        return np.asarray(numbers[regions + 1], np.int64)
    inside = regions >= 0
    regions[inside] = np.unique(regions[inside], return_inverse=True)[1]
    return regions


def has_region(scene: Scene) -> bool:
    """Return whether any valid pixel belongs to a region.

    Raises
    ------
    ValueError
        The Scene has no region map.
    """
    if scene.regions is not None and scene.valid is None:
        return bool(np.max(scene.regions, initial=-1) >= 0)
    return bool((_given_regions(scene, _valid(scene)) >= 0).any())


def _given_regions(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    if scene.regions is None:
        raise ValueError(
            "on='regions' needs superpixels, but this Scene has none: let a SuperpixelClassifier "
            "make the costs, pass Scene(..., regions=map), or use on='pixels'."
        )
    regions = as_label_map(scene.regions, shape=scene.shape, name="regions")
    if valid is not None:
        regions[~valid] = -1
    return regions


def spread_marginals(
    scene: Scene, regions: NDArray[np.int64] | None, marginals: NDArray[np.float32] | None
) -> RegionCosts | NDArray[np.float32]:
    """Return costs from the marginals (R, L) of regions; other pixels keep their own costs.

    ``regions`` and ``marginals`` are None if there is no region.
    """
    if regions is not None and marginals is not None:
        costs = costs_from_proba(marginals, minimum=1e-12)
        inside = regions >= 0
        if inside.all():
            return RegionCosts(regions.astype(np.int32), costs)
    own = proba_from_costs(valid_costs(scene, _valid(scene)))
    spread = costs_from_proba(own, minimum=1e-12)
    if regions is not None and marginals is not None:
        spread[inside] = costs[regions[inside]]
    return spread


def seeded_costs(
    scene: Scene, costs: RegionCosts | NDArray[np.float32]
) -> RegionCosts | NDArray[np.float32]:
    """Return costs of pixels whose marginals are 0 and 1 at the Scene's seeds."""
    seeds = seed_indices(scene, _valid(scene))
    if seeds is None or not bool((seeds >= 0).any()):
        return costs
    everywhere = costs.pixels() if isinstance(costs, RegionCosts) else costs
    certain = seeds >= 0
    n_labels = everywhere.shape[-1]
    everywhere[certain] = costs_from_proba(np.eye(n_labels)[seeds[certain]], minimum=1e-12)
    return everywhere


def spread_labels(
    scene: Scene, regions: NDArray[np.int64] | None, found: NDArray[np.int32] | None
) -> NDArray[np.int32]:
    """Return labels of pixels from the labels (R,) of regions.

    Pixels outside of all regions get their cheapest label, and seeds are kept. ``regions`` and
    ``found`` are None if there is no region.
    """
    valid = _valid(scene)
    labels = valid_costs(scene, valid).argmin(axis=-1).astype(np.int32)
    if regions is not None and found is not None:
        inside = regions >= 0
        labels[inside] = found[regions[inside]]
    seeds = seed_indices(scene, valid)
    return labels if seeds is None else np.where(seeds >= 0, seeds.astype(np.int32), labels)


def _valid(scene: Scene) -> NDArray[np.bool_] | None:
    return None if scene.valid is None else as_mask(scene.valid, scene.shape)
