"""What holds for losses of pixels alone."""

import pytest
import torch

from hybridseg.losses import (
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
)
from tests.losses.cases import problem


def test_scribbles_have_no_boundary(rng):
    """Where nothing else is near, all labeled pixels count alike."""
    logits, labels = problem(rng, (9, 9), void=0)
    sparse = torch.full_like(labels, -1)
    sparse[:, ::4, ::4] = labels[:, ::4, ::4]
    boundary, plain = BoundaryWeightedCrossEntropy(), CrossEntropy()
    assert float(boundary(logits, sparse)) == pytest.approx(float(plain(logits, sparse)))
