"""Families of superpixels, runs and colors."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridseg.features import (
    etps,
    felzenszwalb,
    slic,
)
from hybridseg.features.pixels import perceptual_planes
from hybridseg.kernels.superpixels.color import color_spread, write_quads
from hybridseg.kernels.superpixels.runs import find_runs, join_runs
from hybridseg.kernels.vectors.way import way
from tests.kernels.sweep.cases import (
    Shape,
    family,
)


@family()
def slic_superpixels(of: Shape) -> Any:
    """Cells of several widths, so that the last cell of a row ends at every position."""
    image, valid, axes = of.image(), of.valid(), len(of.shape)
    wanted = (3, max(1, image[..., 0].size // 40), max(1, image[..., 0].size // 130))
    options = {"spatial_ndim": axes, "valid": valid, "n_iter": 3}
    return [slic(image, n, **options) for n in wanted]


@family(share=3)
def etps_superpixels(of: Shape) -> Any:
    image = of.image()
    n = max(1, image[..., 0].size // 60)
    return etps(image, n, spatial_ndim=len(of.shape), valid=of.valid(), n_iter=2)


@family(share=3)
def felzenszwalb_regions(of: Shape) -> Any:
    return felzenszwalb(of.image(), 30.0, min_size=5, spatial_ndim=len(of.shape), valid=of.valid())


@family()
def runs_and_pieces(of: Shape) -> Any:
    labels = of.random().integers(-1, 2, (max(1, of.depth), *of.shape[-2:]))
    labels = np.repeat(labels, 3, axis=2)[..., : of.width].astype(np.int32)
    vectors = way()
    starts, firsts = find_runs(labels, vectors)
    return starts, firsts, *join_runs(labels, starts, firsts, vectors)


@family(atol=1e-5, rtol=1e-6)
def color_statistics(of: Shape) -> Any:
    colors = np.moveaxis(of.image(), -1, 0).astype(np.float32)
    colors = np.ascontiguousarray(colors.reshape(len(colors), -1, *of.shape[-2:]))
    return color_spread(colors, _inside(of, colors.shape[1:]))


@family()
def color_quads(of: Shape) -> Any:
    colors = np.moveaxis(of.image(), -1, 0).astype(np.float32)
    colors = np.ascontiguousarray(colors.reshape(len(colors), -1, *of.shape[-2:]))
    depth, height, width = colors.shape[1:]
    quads = np.full((-(-len(colors) // 4), depth, height, width + of.seed % 11, 4), 9, np.int16)
    means = colors.mean(axis=(1, 2, 3))
    write_quads(colors, _inside(of, colors.shape[1:]), means, 3.7, 300.0, quads)
    n_rows = depth * height * (width + of.seed % 11)
    channels = quads.reshape(-1, n_rows, 4).swapaxes(0, 1).reshape(n_rows, -1)
    return channels[:, : len(colors)]  # others may stay as they are


def _inside(of: Shape, shape: tuple[int, ...]) -> Any:
    valid = of.valid()
    return np.ones(shape, bool) if valid is None else valid.reshape(shape)


@family(share=3)
def perceptual(of: Shape) -> Any:
    return perceptual_planes(of.image(n_channels=3).astype(np.float32))
