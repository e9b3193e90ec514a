"""One loss of three classes for each kind, the loops that define it, and problems."""

import pytest
import torch

from hybridseg.losses import (
    BoundaryDistance,
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
    Focal,
    GapWeightedCrossEntropy,
    GeneralizedDice,
    LovaszSoftmax,
    SoftDice,
    Tversky,
)
from tests.oracles import losses as oracle

WEIGHT = (0.5, 2.0, 1.25)


ALL = (1.0, 1.0, 1.0)


def classwise(loss_of, classes="present", per_image=False, class_weight=ALL):
    return lambda logits, labels: oracle.mean_over_classes(
        logits, labels, loss_of, classes=classes, per_image=per_image, class_weight=class_weight
    )


#: Losses of three classes, and the loops that define them.
CASES = {
    "cross-entropy": (CrossEntropy(), lambda x, t: oracle.cross_entropy(x, t, ALL)),
    "weighted": (CrossEntropy(WEIGHT), lambda x, t: oracle.cross_entropy(x, t, WEIGHT)),
    "focal": (Focal(), lambda x, t: oracle.focal(x, t, 2.0, ALL)),
    "focal weighted": (Focal(0.5, WEIGHT), lambda x, t: oracle.focal(x, t, 0.5, WEIGHT)),
    "boundary": (
        BoundaryWeightedCrossEntropy(),
        lambda x, t: oracle.boundary_weighted(x, t, 0.1, 1),
    ),
    "wide boundary": (
        BoundaryWeightedCrossEntropy(0.3, width=2),
        lambda x, t: oracle.boundary_weighted(x, t, 0.3, 2),
    ),
    "gaps": (
        GapWeightedCrossEntropy(8.0, sigma=2.0),
        lambda x, t: oracle.gap_weighted(x, t, 8.0, 2.0),
    ),
    "dice": (SoftDice(), classwise(lambda p, g: oracle.dice(p, g, 1e-5, False))),
    "squared dice": (
        SoftDice(squared=True, smooth=1.0, classes="all", class_weight=WEIGHT),
        classwise(lambda p, g: oracle.dice(p, g, 1.0, True), range(3), class_weight=WEIGHT),
    ),
    "dice of images": (
        SoftDice(classes=[1, 2], per_image=True),
        classwise(lambda p, g: oracle.dice(p, g, 1e-5, False), [1, 2], per_image=True),
    ),
    "tversky": (Tversky(), classwise(lambda p, g: oracle.tversky(p, g, 0.3, 0.7, 1.0, 1e-5))),
    "focal tversky": (
        Tversky(0.6, 0.2, 0.75, smooth=0.5, per_image=True, class_weight=WEIGHT),
        classwise(
            lambda p, g: oracle.tversky(p, g, 0.6, 0.2, 0.75, 0.5),
            per_image=True,
            class_weight=WEIGHT,
        ),
    ),
    "generalized dice": (
        GeneralizedDice(),
        lambda x, t: oracle.generalized_dice(x, t, False),
    ),
    "generalized dice of images": (
        GeneralizedDice(per_image=True),
        lambda x, t: oracle.generalized_dice(x, t, True),
    ),
    "lovasz": (LovaszSoftmax(), classwise(oracle.lovasz_softmax)),
    "lovasz of images": (
        LovaszSoftmax(classes="all", per_image=True, class_weight=WEIGHT),
        classwise(oracle.lovasz_softmax, range(3), True, WEIGHT),
    ),
    "distance": (
        BoundaryDistance(),
        lambda x, t: oracle.boundary_distance(x, t, range(3), ALL),
    ),
    "distance of two": (
        BoundaryDistance([1, 2], class_weight=WEIGHT),
        lambda x, t: oracle.boundary_distance(x, t, [1, 2], WEIGHT),
    ),
    "sum": (
        CrossEntropy() + 0.5 * SoftDice(smooth=0.0),
        lambda x, t: (
            oracle.cross_entropy(x, t, ALL)
            + 0.5 * classwise(lambda p, g: oracle.dice(p, g, 0.0, False))(x, t)
        ),
    ),
}


each_loss = pytest.mark.parametrize("name", CASES)


def problem(rng, spatial=(5, 6), *, batch=2, n_classes=3, void=0.2):
    """Logits in float64, and blocks of labels with void pixels."""
    logits = rng.normal(0, 2, (batch, n_classes, *spatial))
    labels = rng.integers(0, n_classes, (batch, *spatial))
    labels[:, : spatial[0] // 2, 1 : spatial[-1] // 2] = 0
    labels[rng.random(labels.shape) < void] = rng.integers(-9, 0)
    return torch.from_numpy(logits), torch.from_numpy(labels)
