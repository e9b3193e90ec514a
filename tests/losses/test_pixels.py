"""Laws of the losses over pixels."""

import pytest
import torch

from hybridseg.losses import (
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
)
from tests.losses.cases import problem


def test_scribbles_have_no_boundary(rng):
    """Labeled pixels far from each other have equal weights."""
    logits, labels = problem(rng, (9, 9), void=0)
    sparse = torch.full_like(labels, -1)
    sparse[:, ::4, ::4] = labels[:, ::4, ::4]
    boundary, plain = BoundaryWeightedCrossEntropy(), CrossEntropy()
    assert float(boundary(logits, sparse)) == pytest.approx(float(plain(logits, sparse)))
