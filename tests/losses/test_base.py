"""Every loss equals loops over pixels, passes gradcheck, and obeys the laws of all losses."""

import copy
import pickle

import pytest
import torch

from hybridseg.losses import (
    BoundaryDistance,
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
    Focal,
    GapWeightedCrossEntropy,
    Loss,
    LovaszSoftmax,
    SoftDice,
    Tversky,
)
from tests.losses.cases import CASES, WEIGHT, each_loss, problem


@each_loss
@pytest.mark.parametrize("spatial", [(5, 6), (3, 4, 5)], ids=str)
def test_equals_loops_over_pixels(rng, name, spatial):
    loss, expected = CASES[name]
    for _ in range(3):
        logits, labels = problem(rng, spatial)
        found = float(loss(logits, labels))
        assert found == pytest.approx(expected(logits.numpy(), labels.numpy()), abs=1e-9, rel=1e-9)


@each_loss
def test_degenerate_targets(rng, name):
    """Targets have one pixel, one class, no labels, an absent class, or a single scribble."""
    loss, expected = CASES[name]
    for logits, labels in [
        problem(rng, (1, 1), batch=1, void=0),
        problem(rng, (1, 7), void=0),
        problem(rng, (4, 4), void=0.95),
    ]:
        for change in (lambda t: t, torch.zeros_like, lambda t: t.clamp(max=1)):
            changed = change(labels)
            changed[0] = -1 if len(changed) > 1 else changed[0]
            found = float(loss(logits, changed))
            value = expected(logits.numpy(), changed.numpy())
            assert found == pytest.approx(value, abs=1e-9, rel=1e-9)


@each_loss
def test_gradcheck(rng, name):
    logits, labels = problem(rng, (4, 3))
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(CASES[name][0], (logits, labels))


@each_loss
def test_void_costs_nothing(rng, name):
    """Void pixels change neither the value nor the gradient, and a void batch has no gradient."""
    loss, _ = CASES[name]
    logits, labels = problem(rng)
    void = (labels < 0).unsqueeze(1).expand_as(logits)
    logits.requires_grad_(True)
    loss(logits, labels).backward()
    assert (logits.grad[void] == 0).all()
    assert (logits.grad[~void] != 0).any()
    known = logits.detach()
    other = torch.where(void, 7.0, known)
    assert float(loss(other, labels)) == pytest.approx(float(loss(known, labels)), abs=1e-12)

    logits.grad = None
    value = loss(logits, torch.full_like(labels, -3))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@each_loss
def test_half_precision_is_computed_in_single(rng, name):
    loss, _ = CASES[name]
    logits, labels = problem(rng, (40, 41))
    for dtype in (torch.float16, torch.bfloat16):
        rounded = (8 * logits).to(dtype).requires_grad_(True)
        value = loss(rounded, labels)
        assert value.dtype == torch.float32
        exact = float(loss(rounded.detach().double(), labels))
        assert float(value.detach()) == pytest.approx(exact, rel=1e-4, abs=1e-5)
        value.backward()
        assert rounded.grad.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            assert loss(rounded, labels) == value


@each_loss
def test_extreme_logits_are_finite(rng, name):
    loss, _ = CASES[name]
    logits, labels = problem(rng, (6, 7), void=0)
    right = torch.zeros(logits.shape, dtype=torch.float32).scatter_(1, labels.unsqueeze(1), 1.0)
    for scores in (1e4 * right, -1e4 * right, 0 * right):
        scores.requires_grad_(True)
        value = loss(scores, labels)
        value.backward()
        assert value.isfinite()
        assert scores.grad.isfinite().all()


@each_loss
def test_memory_layout_dtype_and_repeats_do_not_matter(rng, name):
    """Channels-last memory, narrow integers and repeated runs give equal values and gradients."""
    loss, _ = CASES[name]
    logits, labels = problem(rng)
    results = []
    for scores, target in [
        (logits.clone(), labels),
        (logits.contiguous(memory_format=torch.channels_last), labels.to(torch.int8)),
        (logits.transpose(2, 3).contiguous().transpose(2, 3), labels.mT.contiguous().mT),
        (logits.clone(), labels),
    ]:
        scores.requires_grad_(True)
        value = loss(scores, target)
        value.backward()
        results.append((float(value.detach()), scores.grad))
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-12)
    assert results[3][0] == results[0][0]
    assert torch.equal(results[3][1], results[0][1])


@each_loss
def test_flips_commute(rng, name):
    loss, _ = CASES[name]
    logits, labels = problem(rng)
    value = float(loss(logits, labels))
    assert float(loss(logits.flip(-1), labels.flip(-1))) == pytest.approx(value, rel=1e-9)
    assert float(loss(logits.flip(0), labels.flip(0))) == pytest.approx(value, rel=1e-9)


@each_loss
def test_the_truth_is_the_best(rng, name):
    """The truth has the lowest loss, and a step down the gradient lowers the loss."""
    loss, _ = CASES[name]
    logits, labels = problem(rng, void=0)
    right = torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 50.0)
    logits.requires_grad_(True)
    value = loss(logits, labels)
    assert loss(right, labels) < value
    value.backward()
    step = 1e-3 / logits.grad.abs().max()
    assert loss(logits - step * logits.grad, labels) < value


@each_loss
def test_has_no_state_and_travels(rng, name):
    loss, _ = CASES[name]
    logits, labels = problem(rng)
    assert not list(loss.parameters())
    assert not list(loss.buffers())
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert float(twin(logits, labels)) == float(loss(logits, labels))


def test_special_cases_of_one_another(rng):
    logits, labels = problem(rng)
    for one, other in [
        (Focal(0.0, WEIGHT), CrossEntropy(WEIGHT)),
        (Tversky(0.5, 0.5, smooth=0.0), SoftDice(smooth=0.0)),
        (BoundaryWeightedCrossEntropy(1.0), CrossEntropy()),
        (GapWeightedCrossEntropy(0.0), CrossEntropy()),
        (CrossEntropy((3, 3, 3)), CrossEntropy()),
    ]:
        assert float(one(logits, labels)) == pytest.approx(float(other(logits, labels)), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x, t: (x.numpy(), t), TypeError, "logits is a ndarray; expected a torch.Tensor"),
        (lambda x, t: (x.long(), t), TypeError, "logits has dtype torch.int64; expected floats"),
        (
            lambda x, t: (x, t.float()),
            TypeError,
            "target has dtype torch.float32; expected integer",
        ),
        (
            lambda x, t: (x, t[:, 1:]),
            ValueError,
            r"\(2, 3, 5, 6\) and target has shape \(2, 4, 6\)",
        ),
        (lambda x, t: (x, torch.zeros_like(x).long()), ValueError, "not one-hot"),
        (lambda x, t: (x[:, 0], t), ValueError, "expected logits"),
        (lambda x, t: (x[..., :0], t[..., :0]), ValueError, "and no pixel; expected"),
        (lambda x, t: (x, t + 253), ValueError, "holds 255, but logits has 3 channels; .* 0..2"),
    ],
)
@each_loss
def test_what_is_wrong_is_named(rng, name, change, error, match):
    logits, labels = problem(rng)
    labels[0, 0, 0] = 2
    with pytest.raises(error, match=match):
        CASES[name][0](*change(logits, labels))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: CrossEntropy([1.0, -2.0]), ValueError, "class_weight=.*number >= 0"),
        (
            lambda: CrossEntropy([[1.0]]),
            ValueError,
            "class_weight=.*one finite number >= 0 for each",
        ),
        (lambda: SoftDice(class_weight=[0, 0]), ValueError, "at least one of them > 0"),
        (lambda: Focal(-1), ValueError, "gamma=-1; expected a number >= 0"),
        (lambda: SoftDice(smooth=-1), ValueError, "smooth=-1"),
        (lambda: SoftDice(classes="some"), ValueError, "classes='some'.*present"),
        (lambda: BoundaryDistance("present"), ValueError, "classes='present'.*all"),
        (lambda: LovaszSoftmax(classes=[]), ValueError, "classes=.* is empty"),
        (lambda: LovaszSoftmax(classes=[0.5]), TypeError, "a number of classes=0.5"),
        (lambda: Tversky(gamma=0), ValueError, "gamma=0; expected a number > 0"),
        (lambda: GapWeightedCrossEntropy(sigma=0), ValueError, "sigma=0"),
        (lambda: BoundaryWeightedCrossEntropy(2), ValueError, "interior_weight=2"),
        (lambda: BoundaryWeightedCrossEntropy(width=0), ValueError, "width=0"),
    ],
)
def test_bad_options(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_options_that_do_not_fit_the_logits(rng):
    logits, labels = problem(rng)
    with pytest.raises(ValueError, match="class_weight has 2 numbers, but logits has 3 channels"):
        CrossEntropy([1, 2])(logits, labels)
    with pytest.raises(ValueError, match=r"classes=\(1, 5\) holds 5, but logits has 3 channels"):
        SoftDice(classes=[1, 5])(logits, labels)
    with pytest.raises(TypeError, match="Loss lacks the hook _loss"):
        Loss()(logits, labels)


def test_class_weights_may_be_tensors(rng):
    logits, labels = problem(rng)
    loss = CrossEntropy(torch.tensor(WEIGHT, dtype=torch.float64))
    assert loss.class_weight == WEIGHT
    assert float(loss(logits, labels)) == float(CrossEntropy(WEIGHT)(logits, labels))
