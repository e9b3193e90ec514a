"""Networks that are adapted, and images of another kind."""

import copy
from functools import cache

import pytest

from hybridseg.datasets import make_scenes


@cache
def _trained():
    from hybridseg import DeepSegmenter

    scenes = make_scenes(8, shape=(48, 64), n_classes=3, noise=0.05, random_state=0)
    return DeepSegmenter(
        network_options={"width": 4, "depth": 2},
        max_epochs=12,
        crop_size=48,
        augment=None,
        lr=1e-2,
        random_state=0,
    ).fit(scenes.images, scenes.labels)


@pytest.fixture(scope="module")
def trained(one_torch_thread):
    return _trained()


@pytest.fixture(scope="module")
def brief(trained):
    """The same network with few crops in a round of self-training."""
    return copy.copy(trained).set_params(crops_per_image=2)


@pytest.fixture(scope="module")
def scenes():
    """Unlabeled images for the adaptation, and labeled ones to score its result."""
    return make_scenes(12, shape=(48, 64), n_classes=3, noise=0.05, random_state=1)
