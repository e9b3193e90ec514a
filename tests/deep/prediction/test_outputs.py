"""Logits are found in whatever a network gives."""

import pytest
import torch

from hybridseg.deep.prediction.outputs import all_for_two, first_of, logits_of

LOGITS, OTHER = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 2)
SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize(
    "output",
    [LOGITS, [LOGITS], (LOGITS, OTHER), {"out": LOGITS}, {"aux": OTHER, "out": LOGITS, "n": 3}],
)
def test_logits_are_found(output):
    assert first_of(output) is LOGITS
    assert logits_of(output, SHAPE) is LOGITS


def test_a_single_output_is_the_logit_of_the_second_of_two_classes():
    single = torch.randn(2, 1, 4, 5)
    both = logits_of({"out": single}, (2, 2, 4, 5))
    torch.testing.assert_close(both.softmax(dim=1)[:, 1:], single.sigmoid())
    found = all_for_two({"out": single, "aux": [single, OTHER]})
    assert torch.equal(found["out"], both)
    assert torch.equal(found["aux"][0], both)
    assert found["aux"][1] is OTHER


@pytest.mark.parametrize(
    ("output", "match"),
    [
        (torch.zeros(2, 4, 4, 5), r"4 outputs, but y has 3 classes; .* classes=range\(4\)"),
        (OTHER, r"output is \(2, 3, 2, 2\); expected logits \(B, L, H, W\) = \(2, 3, 4, 5\)"),
        ({"logits": LOGITS}, "output is NoneType; expected logits"),
        ([], "output is list; expected logits"),
    ],
)
def test_other_outputs_are_refused(output, match):
    with pytest.raises(ValueError, match=match):
        logits_of(output, SHAPE)
