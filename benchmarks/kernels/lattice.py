"""Construction of the dense CRF's lattices against pydensecrf2, and how it grows with the image.

"build" is the work before the first iteration: features of both kernels, both lattices, and the
normalization; the peer's is from an empty model to the last ``addPairwise``. The peer has one
thread. "scaling" has no peer: the coffee photograph from 0.05 to 3 megapixels, then up to 16 of it
side by side, with nanoseconds for each pixel and the bytes for each pixel that were held at most
while both lattices were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.kernels import growth
from benchmarks.kernels.racing import Row, Setting, peer, photo, race, size_name, threads
from hybridseg.kernels.dense.dense_filter import DenseFilter, embed
from hybridseg.pairwise.dense import BilateralKernel, GaussianKernel, valid_features

NAME = "lattices"
PEER = "pydensecrf2"
#: Standard deviation in pixels and in color of the bilateral kernel, as in the dense CRF's rows.
WIDTHS = ((80.0, 13.0), (67.0, 3.0))


def rows(setting: Setting) -> Iterator[Row]:
    """Every comparison, then the scaling."""
    for size in setting.sizes:
        image = photo("coffee", size)
        for width, color in WIDTHS:
            yield from _built(setting, image, width, color)
    width, color = WIDTHS[0]
    for size in growth.sizes(setting):
        image = growth.photograph(size)
        call = partial(filter_of, image, width, color)
        yield growth.grown(setting, NAME, f"widths {width:g}/{color:g} and 3", size, call)


def filter_of(image: np.ndarray, width: float, color: float) -> DenseFilter:
    """The lattice of positions, 3 pixels wide, and that of positions and colors."""
    colors = image.astype(np.float32)
    kernels = GaussianKernel(3.0, 3.0), BilateralKernel(10.0, width, color)
    features = [valid_features(kernel, colors, None, None) for kernel in kernels]
    return embed(features, len(features[0]))


def _built(setting: Setting, image: np.ndarray, width: float, color: float) -> Iterator[Row]:
    other = peer("pydensecrf.densecrf")
    n_pixels = image.shape[0] * image.shape[1]

    def ours() -> object:
        return filter_of(image, width, color)

    def theirs() -> object:
        model = other.DenseCRF2D(image.shape[1], image.shape[0], 2)
        model.addPairwiseGaussian(sxy=3, compat=3)
        model.addPairwiseBilateral(sxy=width, srgb=color, rgbim=image, compat=10)
        return model

    contenders = {"ours": ours} | ({} if other is None else {PEER: theirs})
    share = filter_of(image, width, color).sections[1, 1] / n_pixels
    for n_threads in setting.threads:
        with threads(n_threads):
            timings = race(contenders, setting.seconds)
        yield Row(
            kernel=NAME,
            case=f"widths {width:g}/{color:g} and 3",
            size=size_name(image.shape[:2]),
            threads=n_threads,
            peer="none" if other is None else PEER,
            ours_s=timings["ours"].best_s,
            peer_s=float("nan") if other is None else timings[PEER].best_s,
            ours_first_s=timings["ours"].first_s,
            stage="build",
            agreement={"vertices per pixel": share},
        )
