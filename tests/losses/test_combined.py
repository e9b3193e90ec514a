"""Sums of losses, deep supervision, several tasks."""

import pytest
import torch

from hybridseg.losses import (
    CrossEntropy,
    DeepSupervision,
    Focal,
    MultiTask,
    SoftDice,
    SumOf,
)
from tests.losses.cases import problem


def test_sums_of_losses(rng):
    logits, labels = problem(rng)
    one, two = CrossEntropy(), SoftDice()
    mixed = 2 * (one + 0.5 * two) + two * 0.25
    assert isinstance(mixed, SumOf)
    assert mixed.weights == (2.0, 1.0, 0.25)
    expected = 2 * one(logits, labels) + 1.25 * two(logits, labels)
    assert float(mixed(logits, labels)) == pytest.approx(float(expected), rel=1e-12)
    foreign = one + torch.nn.CrossEntropyLoss(ignore_index=-1)
    labels = labels.clamp(min=-1)
    assert float(foreign(logits, labels)) == pytest.approx(2 * float(one(logits, labels)))
    with pytest.raises(TypeError, match="unsupported operand"):
        one + 3
    with pytest.raises(TypeError, match="can't multiply|unsupported operand"):
        one * "2"
    with pytest.raises(ValueError, match="a weight of terms=-1.*expected a number >= 0"):
        -1 * one
    with pytest.raises(ValueError, match="terms is empty"):
        SumOf([])
    with pytest.raises(TypeError, match="terms holds a str; expected pairs"):
        SumOf([(1.0, "dice")])


def test_deep_supervision(rng):
    loss = CrossEntropy()
    logits, labels = problem(rng, (6, 8))
    small = logits[..., ::2, ::2]
    enlarged = torch.nn.functional.interpolate(small, size=(6, 8), mode="bilinear")
    main, aux = float(loss(logits, labels)), float(loss(enlarged, labels))

    def found(outputs, weights=None):
        return float(DeepSupervision(loss, weights)(outputs, labels))

    assert found(logits, [1, 2]) == pytest.approx(main)
    assert found([logits, small]) == pytest.approx(main + 0.4 * aux)
    assert found({"aux": small, "out": logits}) == pytest.approx(main + 0.4 * aux)
    assert found((logits, small), (0.5, 2)) == pytest.approx(0.5 * main + 2 * aux)
    assert found({"out": logits, "x": "not read"}, {"out": 3}) == pytest.approx(3 * main)
    assert found([logits, "not read"], [1, 0]) == pytest.approx(main)
    volumes, labels = problem(rng, (4, 4, 6))
    enlarged = torch.nn.functional.interpolate(
        volumes[..., ::2, ::2, ::2], size=(4, 4, 6), mode="trilinear"
    )
    assert found([volumes[..., ::2, ::2, ::2]], [1]) == pytest.approx(float(loss(enlarged, labels)))
    with pytest.raises(
        ValueError, match=r"weights=\[1\] for outputs \[0, 1\]; expected one number"
    ):
        found([logits, small], [1])
    with pytest.raises(ValueError, match=r"for outputs \['out'\]; expected"):
        found({"out": logits}, {"aux": 1})
    with pytest.raises(ValueError, match="a weight of weights=-2"):
        DeepSupervision(loss, [1, -2])


def test_multi_task(rng):
    logits, labels = problem(rng)
    centers, truth = torch.rand(2, 2, 5, 6), torch.rand(2, 2, 5, 6)
    loss = MultiTask(CrossEntropy(), torch.nn.MSELoss(), alpha=2.0, beta=0.5)
    expected = 2 * CrossEntropy()(logits, labels) + 0.5 * ((centers - truth) ** 2).mean()
    named = {"semantic": logits, "instance": centers, "boxes": None}
    assert float(loss((logits, centers), (labels, truth))) == pytest.approx(float(expected))
    assert float(loss(named, [labels, truth])) == pytest.approx(float(expected))
    with pytest.raises(TypeError, match="outputs is Tensor; expected a pair"):
        loss(logits, (labels, truth))
    with pytest.raises(TypeError, match=r"targets is \['semantic'\]; expected a pair"):
        loss((logits, centers), {"semantic": labels})


def test_losses_are_summed_and_printed():
    total = sum([CrossEntropy(), 2 * SoftDice()])
    assert total.weights == (1.0, 2.0)
    assert sum([total]) is total
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + CrossEntropy()
    assert "gamma=1.5" in repr(Focal(gamma=1.5))
    assert "weights=(1.0, 2.0)" in repr(total)
