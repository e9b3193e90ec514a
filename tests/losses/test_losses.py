"""Every loss against loops over pixels, by gradcheck, and by the laws that all of them keep."""

import copy
import pickle

import numpy as np
import pytest
import torch

from hybridseg.losses import (
    BoundaryDistance,
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
    DeepSupervision,
    Focal,
    GapWeightedCrossEntropy,
    GeneralizedDice,
    Loss,
    LovaszHinge,
    LovaszSoftmax,
    MultiTask,
    SoftDice,
    SumOf,
    Tversky,
)
from tests.oracles import losses as oracle

WEIGHT = (0.5, 2.0, 1.25)
ALL = (1.0, 1.0, 1.0)


def classwise(loss_of, classes="present", per_image=False, class_weight=ALL):
    return lambda logits, labels: oracle.mean_over_classes(
        logits, labels, loss_of, classes=classes, per_image=per_image, class_weight=class_weight
    )


#: A loss of three classes, and the loops that say what it is.
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
    "generalised dice": (
        GeneralizedDice(),
        lambda x, t: oracle.generalized_dice(x, t, False),
    ),
    "generalised dice of images": (
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
    """Logits in double, and blocks of labels with void pixels among them."""
    logits = rng.normal(0, 2, (batch, n_classes, *spatial))
    labels = rng.integers(0, n_classes, (batch, *spatial))
    labels[:, : spatial[0] // 2, 1 : spatial[-1] // 2] = 0
    labels[rng.random(labels.shape) < void] = rng.integers(-9, 0)
    return torch.from_numpy(logits), torch.from_numpy(labels)


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
    """One pixel, one class, an image without labels, a class that is absent, a lone scribble."""
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
    """Values at void pixels change nothing, and neither they nor an all void batch learn."""
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
    """Channels-last memory, backward, too; narrow integers; runs give the same bits."""
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
    """No loss is below that of the truth, and a step down the gradient lowers it."""
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
    with pytest.raises(ValueError, match="logits have 3 channels, but LovaszHinge is for two"):
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
    """In single precision the differences of Jaccard losses of 10^5 pixels would cancel."""
    logits, labels = problem(rng, (400, 400), batch=1, void=0)
    exact = logits.requires_grad_(True)
    rough = logits.detach().float().requires_grad_(True)
    for scores in (exact, rough):
        LovaszSoftmax()(scores, labels).backward()
    assert torch.linalg.norm(rough.grad - exact.grad) < 1e-4 * torch.linalg.norm(exact.grad)


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


def test_scribbles_have_no_boundary(rng):
    """Where nothing else is near, all labelled pixels count alike."""
    logits, labels = problem(rng, (9, 9), void=0)
    sparse = torch.full_like(labels, -1)
    sparse[:, ::4, ::4] = labels[:, ::4, ::4]
    boundary, plain = BoundaryWeightedCrossEntropy(), CrossEntropy()
    assert float(boundary(logits, sparse)) == pytest.approx(float(plain(logits, sparse)))


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
    with pytest.raises(ValueError, match=r"weights=\[1\] for outputs \[0, 1\]; expected a number"):
        found([logits, small], [1])
    with pytest.raises(ValueError, match=r"for outputs \['out'\]; expected"):
        found({"out": logits}, {"aux": 1})
    with pytest.raises(ValueError, match="a weight of weights=-2"):
        DeepSupervision(loss, [1, -2])


def test_multi_task(rng):
    logits, labels = problem(rng)
    centres, truth = torch.rand(2, 2, 5, 6), torch.rand(2, 2, 5, 6)
    loss = MultiTask(CrossEntropy(), torch.nn.MSELoss(), alpha=2.0, beta=0.5)
    expected = 2 * CrossEntropy()(logits, labels) + 0.5 * ((centres - truth) ** 2).mean()
    named = {"semantic": logits, "instance": centres, "boxes": None}
    assert float(loss((logits, centres), (labels, truth))) == pytest.approx(float(expected))
    assert float(loss(named, [labels, truth])) == pytest.approx(float(expected))
    with pytest.raises(TypeError, match="outputs is Tensor; expected a pair"):
        loss(logits, (labels, truth))
    with pytest.raises(TypeError, match=r"targets is \['semantic'\]; expected a pair"):
        loss((logits, centres), {"semantic": labels})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x, t: (x.numpy(), t), TypeError, "logits is a ndarray; expected a torch.Tensor"),
        (lambda x, t: (x.long(), t), TypeError, "logits are torch.int64; expected the raw scores"),
        (lambda x, t: (x, t.float()), TypeError, "target is torch.float32; expected class indices"),
        (lambda x, t: (x, t[:, 1:]), ValueError, r"\(2, 3, 5, 6\) and target of shape \(2, 4, 6\)"),
        (lambda x, t: (x, torch.zeros_like(x).long()), ValueError, "not one-hot"),
        (lambda x, t: (x[:, 0], t), ValueError, "expected logits"),
        (lambda x, t: (x[..., :0], t[..., :0]), ValueError, "holds no pixel"),
        (lambda x, t: (x, t + 253), ValueError, "holds 255, but logits have 3 channels; .* 0..2"),
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
        (lambda: CrossEntropy([1.0, -2.0]), ValueError, "class_weight=.*none negative"),
        (lambda: CrossEntropy([[1.0]]), ValueError, "class_weight=.*one finite number a class"),
        (lambda: SoftDice(class_weight=[0, 0]), ValueError, "not all zero"),
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
    with pytest.raises(ValueError, match="class_weight has 2 numbers, but logits have 3 channels"):
        CrossEntropy([1, 2])(logits, labels)
    with pytest.raises(ValueError, match=r"classes=\(1, 5\) names 5, but logits have 3 channels"):
        SoftDice(classes=[1, 5])(logits, labels)
    with pytest.raises(TypeError, match="Loss lacks the hook _loss"):
        Loss()(logits, labels)


def test_class_weights_may_be_tensors(rng):
    logits, labels = problem(rng)
    loss = CrossEntropy(torch.tensor(WEIGHT, dtype=torch.float64))
    assert loss.class_weight == WEIGHT
    assert float(loss(logits, labels)) == float(CrossEntropy(WEIGHT)(logits, labels))


def test_losses_are_summed_and_printed():
    total = sum([CrossEntropy(), 2 * SoftDice()])
    assert total.weights == (1.0, 2.0)
    assert sum([total]) is total
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + CrossEntropy()
    assert "gamma=1.5" in repr(Focal(gamma=1.5))
    assert "weights=(1.0, 2.0)" in repr(total)
