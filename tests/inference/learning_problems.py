"""Images whose labels a CRF can learn to refine: noisy costs of large pieces, and thin lines."""

import numpy as np

from hybridseg import Scene

GRAYS = np.array([40, 110, 180, 240])


def scene(seed, *, shape=(40, 56), n_labels=3, noise=1.5, signal=1.0, valid=False, **fields):
    """A Scene with costs of independent noise, and its label map."""
    random = np.random.default_rng(seed)
    side = 8
    pieces = random.integers(0, n_labels, (-(-shape[0] // side), -(-shape[1] // side)))
    truth = pieces.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]
    image = GRAYS[truth] + random.integers(-20, 21, truth.shape)
    costs = noise * random.gumbel(size=(*shape, n_labels)) - signal * np.eye(n_labels)[truth]
    mask = None
    if valid:
        mask = np.ones(shape, bool)
        mask[:, :9] = False
    return (
        Scene(
            image.clip(0, 255).astype(np.uint8),
            unary=costs.astype(np.float32),
            classes=np.arange(n_labels),
            valid=mask,
            **fields,
        ),
        truth,
    )


def volumes(n):
    """Lists of Scenes of volumes with spacing, of two labels, and of label maps."""
    random = np.random.default_rng(0)
    X, y = [], []
    for _ in range(n):
        truth = random.integers(0, 2, (2, 3, 3)).repeat(5, 0).repeat(5, 1).repeat(5, 2)
        volume = truth * 90 + random.integers(0, 40, truth.shape)
        costs = 1.5 * random.gumbel(size=(*truth.shape, 2)) - np.eye(2)[truth]
        X.append(
            Scene(
                volume.astype(np.uint8),
                unary=costs.astype(np.float32),
                classes=[0, 1],
                spacing=(2.0, 1.0, 1.0),
            )
        )
        y.append(truth)
    return X, y


def scenes(n, first=0, **options):
    """Lists of Scenes and of label maps."""
    both = [scene(seed, **options) for seed in range(first, first + n)]
    return [each for each, _ in both], [truth for _, truth in both]
