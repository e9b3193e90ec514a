"""Laws of the losses over regions."""

import numpy as np
import pytest
import torch

from hybridseg.losses import (
    LovaszHinge,
    LovaszSoftmax,
)
from tests.losses.cases import problem
from tests.oracles import losses as oracle


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_hinge(rng, per_image):
    loss = LovaszHinge(per_image=per_image)
    for spatial in [(5, 6), (3, 4, 2), (1, 1)]:
        logits, labels = problem(rng, spatial, n_classes=2)
        expected = oracle.lovasz_hinge(logits.numpy(), labels.numpy(), per_image)
        assert float(loss(logits, labels)) == pytest.approx(expected, abs=1e-9)
    logits, labels = problem(rng, (4, 3), n_classes=2)
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (logits, labels))
    value = loss(logits, torch.full_like(labels, -1))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()
    with pytest.raises(ValueError, match="logits has 3 channels; LovaszHinge expects two"):
        loss(*problem(rng))


def test_lovasz_of_hard_predictions_is_the_jaccard_loss(rng):
    """On the corners of the cube the extension is the set function itself."""
    labels = torch.from_numpy(rng.integers(0, 3, (2, 6, 7)))
    guess = torch.from_numpy(rng.integers(0, 3, (2, 6, 7)))
    logits = torch.zeros(2, 3, 6, 7, dtype=torch.float64).scatter_(1, guess.unsqueeze(1), 800.0)
    jaccard = [
        float(((labels == i) & (guess == i)).sum() / ((labels == i) | (guess == i)).sum())
        for i in range(3)
    ]
    assert float(LovaszSoftmax()(logits, labels)) == pytest.approx(1 - np.mean(jaccard))


def test_lovasz_keeps_its_digits_over_many_pixels(rng):
    """In float32 the differences of Jaccard losses over 10^5 pixels would cancel."""
    logits, labels = problem(rng, (400, 400), batch=1, void=0)
    exact = logits.requires_grad_(True)
    rough = logits.detach().float().requires_grad_(True)
    for scores in (exact, rough):
        LovaszSoftmax()(scores, labels).backward()
    assert torch.linalg.norm(rough.grad - exact.grad) < 1e-4 * torch.linalg.norm(exact.grad)
