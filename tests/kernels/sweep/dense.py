"""Families of dense CRFs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridseg.inference import (
    DenseModel,
    mean_field,
)
from hybridseg.inference.mean_field.dense_gradient import DenseTape
from hybridseg.kernels.dense import dense_filter
from hybridseg.pairwise import BilateralKernel, FeatureKernel, GaussianKernel
from tests.kernels.sweep.cases import (
    Shape,
    family,
    short_rows,
)


@family(atol=2e-4)
def dense_crf(of: Shape) -> Any:
    compatibility = "potts"
    if of.seed % 3 == 0:
        compatibility = of.random().random((of.n_labels,) * 2)
        compatibility = compatibility + compatibility.T
        np.fill_diagonal(compatibility, 0)
    return mean_field(
        *(of.costs(), of.image()), n_iter=2, valid=of.valid(), compatibility=compatibility,
        spatial_weight=1.0, bilateral_weight=1.0, tol=1e-9 if of.seed % 2 else 0.0,
    ).marginals  # fmt: skip


@family(atol=2e-4, shapes=short_rows)
def dense_crf_of_few_points(of: Shape) -> Any:
    features = of.random().random((*of.shape, 1))
    model = DenseModel.of(of.image(), kernels=[FeatureKernel(1.0, features)])
    return model.mean_field(
        of.costs(), n_iter=1, spatial_weight=1.0, bilateral_weight=1.0
    ).marginals


@family(atol=2e-4, share=2)
def dense_crf_pruned(of: Shape) -> Any:
    costs = of.costs(of.n_labels + 2) + 40 * (np.arange(of.n_labels + 2) % 3 == 2)
    features = of.random().random((*of.shape, of.n_channels))
    kernels = [FeatureKernel(0.1, features)]
    return mean_field(
        costs, of.image(), n_iter=2, prune=1e-3, kernels=kernels, valid=of.valid(),
        spatial_weight=0.1, bilateral_weight=0.1,
    ).marginals  # fmt: skip


@family(atol=2e-4, share=2)
def dense_crf_of_two_labels(of: Shape) -> Any:
    costs, image, valid = of.costs(2), of.image(), of.valid()
    return mean_field(costs, image, n_iter=2, valid=valid, bilateral_weight=1.0).marginals


@family(atol=2e-4, share=2)
def dense_crf_of_large_lattices(of: Shape) -> Any:
    """Lattices whose rows several threads share; large lattices alone would take too long."""
    small, dense_filter._MAX_VERTICES_OF_ONE_THREAD = dense_filter._MAX_VERTICES_OF_ONE_THREAD, 8
    try:
        return dense_crf(of)
    finally:
        dense_filter._MAX_VERTICES_OF_ONE_THREAD = small


@family(atol=2e-3, share=2)
def dense_crf_gradient(of: Shape) -> Any:
    """The gradient by costs, by the matrices of labels, by the weights of the filter, by features.

    Vectors and plain loops round the weights differently, and the slope of coordinates is steep, so
    the gradient of features is only asked to be finite.
    """
    image, n_labels = of.image().astype(np.float32), of.n_labels
    colors = image.reshape(*of.shape, -1)
    kernels = [GaussianKernel(1.0, 2.0), BilateralKernel(1.0, 5.0, 30.0)]
    features = [kernel.embed(colors) for kernel in kernels]
    rows = np.ascontiguousarray(of.costs().reshape(-1, n_labels), dtype=np.float32)
    dense = dense_filter.embed(features, len(rows))
    matrices = list(of.random().random((2, n_labels, n_labels)))
    matrices[0] = np.eye(n_labels)
    tape = DenseTape.record(dense, rows, matrices, 2)
    given = of.random().standard_normal(rows.shape).astype(np.float32)
    found = tape.gradient(given, corners=True)
    of_features = [found.of_features(dense, k, each) for k, each in enumerate(features)]
    finite = [float(np.isfinite(each).all()) for each in of_features]
    parts = [found.costs, *found.responses, found.corners]
    return np.concatenate([*(each.ravel() for each in parts), finite])
