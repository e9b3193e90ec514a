"""Losses of torch and of one's own, parts of batches, and networks of other forms."""

import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg import DeepSegmenter, PretrainedSegmenter
from hybridseg.deep.prediction.device import as_device
from hybridseg.deep.training.loss import CLASS_WEIGHTS, LOSSES, TrainingLoss, make_loss
from hybridseg.deep.training.processes import Processes
from hybridseg.losses import CrossEntropy, DeepSupervision, Focal, SoftDice, SumOf, median_frequency
from hybridseg.metrics import mean_iou
from hybridseg.networks import adapt
from tests.deep.subjects import IMAGES, LABELS, quick, weights
from tests.subjects import halves

pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Scribbles: most pixels are void.
SPARSE = [np.where(np.indices(y.shape).sum(0) % 3 == 0, y, -1) for y in LABELS]
ALONE = Processes(as_device("cpu"))


def pair(n_classes=3, spatial=(4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, n_classes, *spatial, generator=generator)
    labels = torch.randint(-1, n_classes, (2, *spatial), generator=generator)
    return logits, labels


# torch's losses


@pytest.mark.parametrize("ignore_index", [-100, -1, 255, -7])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 5)])
def test_torchs_cross_entropy_takes_void_pixels(ignore_index, weight, smoothing, spatial):
    logits, labels = pair(spatial=spatial)
    theirs = nn.CrossEntropyLoss(weight, ignore_index=ignore_index, label_smoothing=smoothing)
    found = TrainingLoss(make_loss(theirs, None), 3)(logits, labels)
    flat = logits.movedim(1, -1)[labels >= 0]
    expected = nn.functional.cross_entropy(
        flat, labels[labels >= 0], weight, label_smoothing=smoothing
    )
    torch.testing.assert_close(found, expected)
    assert theirs.ignore_index == ignore_index
    ours = CrossEntropy(weight, label_smoothing=smoothing)
    torch.testing.assert_close(ours(logits, labels), expected)


def test_a_class_that_torchs_loss_ignores_is_ignored_with_the_void_pixels():
    logits, labels = pair()
    found = TrainingLoss(make_loss(nn.CrossEntropyLoss(ignore_index=1), None), 3)(logits, labels)
    expected = CrossEntropy()(logits, labels.masked_fill(labels == 1, -1))
    torch.testing.assert_close(found, expected)


def test_negative_log_likelihood_is_given_log_probabilities():
    logits, labels = pair()
    for given in (logits, torch.log_softmax(logits, dim=1)):
        found = TrainingLoss(make_loss(nn.NLLLoss(), None), 3)(given, labels)
        torch.testing.assert_close(found, CrossEntropy()(logits, labels))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), CrossEntropy()])
def test_a_batch_without_labels_costs_nothing(loss):
    logits = torch.randn(1, 2, 4, 5, requires_grad=True)
    found = TrainingLoss(make_loss(loss, None), 2)(logits, torch.full((1, 4, 5), -1))
    found.backward()
    assert found.item() == 0
    assert logits.grad is None or logits.grad.abs().max() == 0


def test_a_batch_of_classes_that_do_not_count_costs_nothing():
    logits = torch.randn(1, 2, 4, 5, requires_grad=True)
    loss = nn.CrossEntropyLoss(torch.tensor([0.0, 1.0]))
    found = TrainingLoss(make_loss(loss, None), 2)(logits, torch.zeros(1, 4, 5, dtype=int))
    assert found.item() == 0


class TheirDice(nn.Module):
    """A loss like those of other libraries, which ignores pixels with ``ignore_index``."""

    def __init__(self, ignore_index=None):
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits, target):
        known = target != self.ignore_index
        one_hot = nn.functional.one_hot(target * known, logits.shape[1]).movedim(-1, 1)
        return 1 - (logits.softmax(1) * one_hot * known[:, None]).mean()


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 2.0]), reduction="sum"),
        nn.NLLLoss(),
        TheirDice(),
        TheirDice(255),
        CrossEntropy(label_smoothing=0.1),
        SumOf([(1.0, nn.CrossEntropyLoss()), (0.5, TheirDice())]),
        DeepSupervision(nn.CrossEntropyLoss()),
        CrossEntropy() + nn.CrossEntropyLoss(),
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_of_others_train_on_scribbles(loss, precision):
    model = quick(loss=loss, max_epochs=1, precision=precision, validation=0.3, accumulate=2)
    model.fit(IMAGES, SPARSE)
    assert np.isfinite(model.net_.history[:, "train_loss"]).all()
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()


class Unaware(nn.Module):
    """A loss that does not ignore pixels without a label."""

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (Unaware(), "Unaware fails on labels .*pass ignore_index=-1"),
        (nn.CrossEntropyLoss(reduction="none"), "CrossEntropyLoss returns .*; .*reduction='mean'"),
        (nn.BCEWithLogitsLoss(), "which is for two classes, but there are 3; use loss="),
    ],
)
def test_losses_that_cannot_be_used_are_named(loss, match):
    with pytest.raises(ValueError, match=match):
        quick(loss=loss).fit(IMAGES, SPARSE)


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_label_smoothing_is_a_share(wrong):
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(label_smoothing=wrong)


def test_losses_without_label_smoothing_do_not_speak_of_it():
    assert repr(CrossEntropy()) == "CrossEntropy(class_weight=None)"
    assert "label_smoothing=0.1" in repr(CrossEntropy(label_smoothing=0.1))


def test_label_smoothing_keeps_the_network_from_certainty():
    sure, unsure = (
        quick(loss=CrossEntropy(label_smoothing=s), max_epochs=10, lr=0.03, crops_per_image=8)
        .fit(IMAGES, LABELS)
        .predict_proba(IMAGES)[0]
        .max(axis=-1)
        .mean()
        for s in (0.0, 0.3)
    )
    assert unsure < sure - 0.1


# Parts of a batch


def linear(in_channels, n_classes):
    return nn.Conv2d(in_channels, n_classes, 1)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(),
        CrossEntropy([1, 5, 2], label_smoothing=0.1),
        Focal(),
        nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 2.0])),
        nn.CrossEntropyLoss(reduction="sum"),
        DeepSupervision(nn.NLLLoss()),
        CrossEntropy() + Focal(),
    ],
    ids=str,
)
def test_parts_add_up_to_the_batch_whatever_is_void(loss):
    """Five crops in four parts of 2, 1, 1 and 1, with different numbers of labeled pixels."""
    rng = np.random.default_rng(0)
    labels = [np.where(rng.random(y.shape) < share, y, -1) for y, share in zip(
        LABELS, (0.02, 0.9, 0.3), strict=True
    )]  # fmt: skip
    made = [
        quick(
            network=linear,
            network_options=None,
            loss=loss,
            batch_size=5,
            crops_per_image=4,
            accumulate=parts,
            optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
        ).fit(IMAGES, labels)
        for parts in (1, 2, 4, 5, 9)
    ]
    for other in made[1:]:
        for name, value in weights(made[0]).items():
            torch.testing.assert_close(weights(other)[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            other.net_.history[:, "train_loss"], made[0].net_.history[:, "train_loss"], rtol=1e-4
        )


class Spy(nn.Module):
    seen: list = []  # noqa: RUF012

    def __init__(self, in_channels, n_classes):
        super().__init__()
        self.last = nn.Conv2d(in_channels, n_classes, 1)

    def forward(self, images):
        if self.training:
            self.seen.append(len(images))
        return self.last(images)


@pytest.mark.parametrize(
    ("batch", "parts", "sizes"),
    [(8, 3, [3, 3, 2]), (10, 4, [3, 3, 2, 2]), (9, 8, [2, *[1] * 7]), (3, 5, [1, 1, 1])],
)
def test_parts_are_even(monkeypatch, batch, parts, sizes):
    monkeypatch.setattr(Spy, "seen", [])
    changes = {"network": Spy, "network_options": None, "crops_per_image": batch}
    quick(**changes, batch_size=batch, accumulate=parts, max_epochs=1).fit(IMAGES, LABELS)
    assert Spy.seen == sizes * 3


def test_losses_that_are_no_means_count_by_the_crops():
    labels = pair()[1], pair(seed=1)[1][:1]
    shares = TrainingLoss(SoftDice(), 3).shares(labels, ALONE)
    assert [float(share) for share in shares] == pytest.approx([2 / 3, 1 / 3])


class Pooled(nn.Module):
    """A batch normalization after global pooling, with one value per channel and crop."""

    def __init__(self, in_channels, n_classes, norm=nn.BatchNorm2d):
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, 4, 1), norm(4))
        self.last = nn.Conv2d(in_channels + 4, n_classes, 1)

    def forward(self, images):
        pooled = self.pool(images).expand(-1, -1, *images.shape[2:])
        return self.last(torch.cat([images, pooled], dim=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 1},
        {"batch_size": 4, "accumulate": 4},
        {"batch_size": 4, "accumulate": 3},
        {"network_options": {"norm": nn.InstanceNorm2d}},
    ],
)
def test_batch_normalization_of_single_values_names_the_batch_size(changes):
    settings = {"network": Pooled, "network_options": None} | changes
    with pytest.raises(ValueError, match="one value per channel .*larger batch_size.* crop_size"):
        quick(**settings).fit(IMAGES, LABELS)


# Networks of other forms


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wrap", [lambda network: network, adapt])
def test_networks_of_another_precision_are_trained_in_float32(dtype, wrap):
    torch.manual_seed(0)
    start = nn.Conv2d(3, 3, 1).to(dtype)
    model = quick(network=wrap(start), network_options=None).fit(IMAGES, LABELS)
    assert {p.dtype for p in model.net_.module_.parameters()} == {torch.float32}
    assert start.weight.dtype == dtype
    twin = quick(network=wrap(start.float()), network_options=None).fit(IMAGES, LABELS)
    for one, other in zip(model.predict_proba(IMAGES), twin.predict_proba(IMAGES), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)

    def factory(in_channels, n_classes):
        return nn.Conv2d(in_channels, n_classes, 1).to(dtype)

    quick(network=factory, network_options=None, max_epochs=1).fit(IMAGES, LABELS).predict(IMAGES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mean", [None, 100.0])
@pytest.mark.parametrize("everything", [False, True])
def test_pretrained_networks_of_another_precision_predict(dtype, mean, everything):
    torch.manual_seed(0)
    inner = nn.Conv2d(3, 3, 1)
    expected = PretrainedSegmenter(adapt(inner, mean=mean), range(3)).predict_proba(IMAGES)
    inner.to(dtype)
    network = adapt(inner, mean=mean)
    if everything:
        network.to(dtype)
    found = PretrainedSegmenter(network, range(3)).predict_proba(IMAGES)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).mean() < 0.05
    if mean is None:
        bare = PretrainedSegmenter(inner, range(3)).predict_proba(IMAGES)
        np.testing.assert_array_equal(bare[0], found[0])


def one_output(in_channels=3, n_classes=2):
    return nn.Conv2d(in_channels, 1, 1)


class OneOutputAndHead(nn.Module):
    def __init__(self, kind):
        super().__init__()
        with torch.random.fork_rng():  # the same weights, whichever tests were made before
            torch.manual_seed(0)
            self.main, self.coarse = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 2, stride=2)
        self.kind = kind

    def forward(self, images):
        main, coarse = self.main(images), self.coarse(images)
        return {"out": main, "aux": coarse} if self.kind == "dict" else [main, coarse]


@pytest.mark.parametrize(
    "network",
    [one_output, nn.Conv2d(3, 1, 1), adapt(nn.Conv2d(3, 1, 1))]
    + [OneOutputAndHead(kind) for kind in ("dict", "list")],
    ids=["factory", "module", "adapted", "dict", "list"],
)
@pytest.mark.parametrize("loss", ["cross_entropy", nn.BCEWithLogitsLoss(), Focal()], ids=str)
def test_one_output_tells_two_classes_apart(network, loss):
    labels = [np.where(image[..., 0] > 120, 7, 2) for image in IMAGES]
    model = quick(
        network=network, network_options=None, loss=loss, max_epochs=12, lr=0.1, validation=0.3
    ).fit(IMAGES, labels)
    assert model.classes_.tolist() == [2, 7]
    assert mean_iou(labels, model.predict(IMAGES)) > 0.8
    assert model.predict_proba(IMAGES)[0].shape[-1] == 2


def test_one_output_is_the_logit_of_the_second_class():
    logits, labels = pair(2)
    margin = (logits[:, 1:] - logits[:, :1]).requires_grad_()
    found = TrainingLoss(make_loss("cross_entropy", None), 2)(margin, labels)
    known = labels >= 0
    expected = nn.functional.binary_cross_entropy_with_logits(
        margin[:, 0][known], labels[known].float()
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        TrainingLoss(make_loss(nn.BCEWithLogitsLoss(), None), 2)(margin, labels), expected
    )


def test_one_output_does_not_tell_three_classes_apart():
    with pytest.raises(ValueError, match="the network has 1 outputs, but y has 3 classes"):
        DeepSegmenter(nn.Conv2d(3, 1, 1), crop_size=16).fit(IMAGES, LABELS)


@pytest.mark.parametrize("wrap", [lambda network: network, adapt])
def test_pretrained_networks_with_one_output(wrap):
    network = nn.Conv2d(3, 1, 1)
    found = PretrainedSegmenter(wrap(network), [4, 9]).predict_proba(IMAGES)
    colors = torch.from_numpy(np.moveaxis(IMAGES[0].astype(np.float32), -1, 0))
    expected = torch.sigmoid(network(colors[None]))[0, 0].detach().numpy()
    np.testing.assert_allclose(found[0][..., 1], expected, atol=1e-5)


@pytest.mark.parametrize("loss", [*sorted(LOSSES), CrossEntropy() + 0.5 * SoftDice()])
def test_losses(loss):
    model = quick(loss=loss, max_epochs=1).fit(IMAGES, LABELS)
    assert np.isfinite(model.net_.history[:, "train_loss"]).all()


@pytest.mark.parametrize("rule", sorted(CLASS_WEIGHTS))
def test_weights_of_classes_by_name(rule):
    model = quick(class_weight=rule, loss="focal", max_epochs=1).fit(IMAGES, LABELS)
    assert len(model.net_.criterion_.loss.loss.class_weight) == 3


def test_weights_of_classes_by_value_or_in_order():
    values = [np.array([3, 7, 9])[each] for each in LABELS]
    for given, expected in (({7: 2.5}, [1, 2.5, 1]), ([1, 2, 3], [1, 2, 3])):
        model = quick(class_weight=given, max_epochs=1).fit(IMAGES, values)
        assert list(model.net_.criterion_.loss.loss.class_weight) == expected


def test_median_frequency_is_the_losses():
    assert CLASS_WEIGHTS["median_frequency"] is median_frequency


def test_balanced_weights():
    labels = np.zeros((16, 20), int)
    labels[0, :5] = 1
    model = quick(class_weight="balanced").fit([IMAGES[0][:16, :20]], [labels])
    weights = [320 / (2 * 315), 320 / (2 * 5)]
    np.testing.assert_allclose(model.net_.criterion_.loss.loss.class_weight, weights, rtol=1e-6)
    assert quick().fit(IMAGES, LABELS).net_.criterion_.loss.loss.class_weight is None


def test_a_void_batch_costs_nothing():
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    loss = TrainingLoss(make_loss("cross_entropy", None), 3)(logits, torch.full((1, 4, 5), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_void_pixels_do_not_count():
    logits = torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    labels = torch.full((1, 4, 5), -1)
    labels[0, 2, 1:3] = torch.tensor([0, 2])
    loss = TrainingLoss(make_loss("cross_entropy", None), 3)(logits, labels)
    loss.backward()
    log_proba = torch.log_softmax(logits.detach(), dim=1)[0, :, 2]
    assert loss.item() == pytest.approx(-(log_proba[0, 1] + log_proba[2, 2]).item() / 2, rel=1e-5)
    np.testing.assert_array_equal(logits.grad[0].abs().sum(dim=0) > 0, labels[0] >= 0)


def ending_in(layer):
    """A factory of networks whose outputs saturate, with a layer after them."""

    def make(in_channels, n_classes):
        convolve = nn.Conv2d(in_channels, n_classes, 1)
        nn.init.normal_(convolve.weight, std=20)
        return nn.Sequential(convolve, layer)

    return make


def fit_briefly(network):
    settings = {"max_epochs": 1, "crops_per_image": 2, "crop_size": 8, "random_state": 0}
    return DeepSegmenter(network, **settings).fit(*halves(((16, 20), (18, 12))))


@pytest.mark.parametrize(
    ("layer", "output"), [(nn.Softmax(dim=1), "proba"), (nn.Sigmoid(), "sigmoid")]
)
def test_a_training_tells_once(layer, output):
    network = ending_in(layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_briefly(network)
    told = [each for each in caught if f"adapt(network, output='{output}')" in str(each.message)]
    assert len(told) == 1

    def cured(**options):
        return adapt(network(**options), output=output)

    assert fit_briefly(cured).predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.parametrize("layer", [nn.LogSoftmax(dim=1), nn.ReLU(), nn.Identity()])
def test_other_ends_are_trained_silently(layer):
    assert fit_briefly(ending_in(layer)).predict(IMAGES)[0].shape == LABELS[0].shape
