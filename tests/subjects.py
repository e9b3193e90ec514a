"""Small instances of every estimator, and small images for them."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from hybridseg import (
    CRF,
    AutoHybrid,
    Blend,
    CrossFit,
    DenseCRF,
    GraphCut,
    GridCRF,
    LevelSet,
    PixelClassifier,
    RandomWalker,
    StackedSegmenter,
    SuperpixelClassifier,
)
from hybridseg.features import SLIC, PixelFeatures
from hybridseg.learning import Learner
from hybridseg.pairwise import BilateralKernel, GridTerm, RegionTerm


def forest():
    return RandomForestClassifier(n_estimators=8, random_state=0)


def pixels(**options):
    return PixelClassifier(forest(), features=PixelFeatures(sigmas=(1.0,)), **options)


def superpixels(**options):
    return SuperpixelClassifier(forest(), superpixels=SLIC(n_segments=60), **options)


def deep(**options):
    pytest.importorskip("torch")
    pytest.importorskip("skorch")
    from hybridseg import DeepSegmenter

    small = {"network_options": {"width": 4, "depth": 2}, "max_epochs": 2, "random_state": 0}
    return DeepSegmenter("unet", **(small | options))


def boundary(estimator=None, **options):
    pytest.importorskip("torch")
    pytest.importorskip("skorch")
    from hybridseg import BoundaryRefiner

    small = {"band": 3, "hidden": 4, "depth": 3, "n_patches": 8, "patch_size": 12, "max_epochs": 2}
    return BoundaryRefiner(estimator, **(small | {"cv": 2, "gate": 2, "random_state": 0} | options))


def members(**options):
    return [("pixels", pixels(**options)), ("regions", superpixels(**options))]


SEGMENTERS = {
    "PixelClassifier": pixels,
    "SuperpixelClassifier": superpixels,
    "DeepSegmenter": deep,
    "AutoHybrid": lambda **options: AutoHybrid(
        segmenters=members(**options), refiners=[("CRF", GridCRF())], cv=2, random_state=0
    ),
    "BoundaryRefiner": lambda **options: boundary(pixels(**options)),
    "Blend": lambda **options: Blend(members(**options), cv=2, random_state=0),
    "CrossFit": lambda **options: CrossFit(pixels(**options), cv=2),
    "CRF": lambda **options: CRF(
        [GridTerm(1.0), BilateralKernel(2.0, 8.0, 20.0)], estimator=pixels(**options)
    ),
    "CRF that learns": lambda **options: CRF(
        [GridTerm(0.5), BilateralKernel(1.0, 8.0, 20.0)],
        estimator=pixels(**options),
        learn=Learner("all", max_iter=3, cv=2, random_state=0),
        cv=2,
    ),
    "CRF by cuts": lambda **options: CRF(
        [GridTerm(1.0)], estimator=pixels(**options), solver="cuts", label_costs=(1.0, 1.0, 1.0)
    ),
    "CRF on regions": lambda **options: CRF(
        (RegionTerm(1.0), GridTerm(0.5)), estimator=superpixels(**options), on="regions"
    ),
    "DenseCRF": lambda **options: DenseCRF(pixels(**options)),
    "DenseCRF that learns": lambda **options: DenseCRF(
        pixels(**options), learn=Learner(max_iter=3, cv=2, random_state=0), cv=2
    ),
    "GraphCut": lambda **options: GraphCut(pixels(**options)),
    "GraphCut that learns": lambda **options: GraphCut(
        pixels(**options),
        learn=Learner(("weights", "bias"), max_iter=3, cv=2, random_state=0),
        cv=2,
    ),
    "GraphCut on regions": lambda **options: GraphCut(superpixels(**options), on="regions"),
    "GridCRF": lambda **options: GridCRF(pixels(**options)),
    "GridCRF that learns": lambda **options: GridCRF(
        pixels(**options), learn=Learner("weights", max_iter=3, cv=2, random_state=0), cv=2
    ),
    "GridCRF on regions": lambda **options: GridCRF(superpixels(**options), on="regions"),
    "LevelSet": lambda **options: LevelSet(pixels(**options)),
    "RandomWalker": lambda **options: RandomWalker(pixels(**options)),
    "StackedSegmenter": lambda **options: StackedSegmenter(
        members(**options), forest(), features=PixelFeatures(sigmas=(1.0,)), cv=2, random_state=0
    ),
}
REFINERS = {
    model.__name__: model for model in (DenseCRF, GraphCut, GridCRF, LevelSet, RandomWalker)
}


def halves(shapes=((24, 32), (30, 22), (20, 26)), *, values=(0, 1, 2), seed=0, channels=3):
    """Noisy images of colored blocks in several sizes, and their maps of the labels ``values``."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    palette = rng.permuted(np.linspace(30, 220, 3)[:, None] * np.ones(channels), axis=0)
    for shape in shapes:
        truth = np.zeros(shape, dtype=int)
        truth[..., shape[-1] // 3 :] = 1
        truth[..., shape[-2] // 2 :, : shape[-1] // 2] = 2
        colors = palette[truth] + rng.normal(0, 12, (*shape, channels))
        images.append(np.clip(colors, 0, 255).astype(np.uint8))
        labels.append(np.asarray(values)[truth])
    return images, labels
