"""Scenes whose costs are wrong in a known way: boundaries lie a few pixels off the true ones."""

import numpy as np
from scipy import ndimage

from hybridseg import Scene


def shifted(seed, *, shape=(40, 48), shift=3, n_labels=2, valid=None, **fields):
    """A Scene whose segmentation is moved along the last axis, and the true label map."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(
        random.normal(size=(n_labels, *shape)), (0,) + (5,) * len(shape)
    )
    truth = noise.argmax(axis=0)
    image = 40 + truth[..., None] * (150 // n_labels) + random.normal(0, 8, (*shape, 3))
    wrong = np.roll(truth, shift, axis=-1)
    logits = 3 * np.eye(n_labels)[wrong] + random.normal(0, 0.2, (*shape, n_labels))
    scene = Scene.from_logits(image.clip(0, 255).astype(np.uint8), logits, valid=valid, **fields)
    return scene, truth


def several(n, first=0, **options):
    """Lists of Scenes and of label maps."""
    both = [shifted(seed, **options) for seed in range(first, first + n)]
    return [scene for scene, _ in both], [truth for _, truth in both]
