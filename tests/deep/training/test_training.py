"""Training: losses, schedules, parts, volumes, validation, checkpoints, fine-tuning."""

import copy
import functools

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import KFold, cross_val_score
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from hybridseg.base import TrainingSet
from hybridseg.deep.prediction.half import training_layout, wide_where_small
from hybridseg.deep.training.augment import zoomed
from hybridseg.deep.training.crops import Crops, Pictures, crop_shape
from hybridseg.deep.training.loop import Schedule
from hybridseg.deep.training.loss import CLASS_WEIGHTS, LOSSES
from hybridseg.losses import CrossEntropy, DeepSupervision, SoftDice, median_frequency
from hybridseg.metrics import mean_iou
from hybridseg.networks import BiSeNet, adapt
from hybridseg.unary import Augmentation, plot_history
from tests.deep.subjects import IMAGES, LABELS, quick, same, weights
from tests.subjects import halves

pytestmark = pytest.mark.usefixtures("one_torch_thread")


# Losses and the weights of classes


@pytest.mark.parametrize("loss", [*sorted(LOSSES), CrossEntropy() + 0.5 * SoftDice()])
def test_losses(loss):
    model = quick(loss=loss, max_epochs=1).fit(IMAGES, LABELS)
    assert np.isfinite(model.net_.history[:, "train_loss"]).all()


@pytest.mark.parametrize("rule", sorted(CLASS_WEIGHTS))
def test_weights_of_classes_by_name(rule):
    model = quick(class_weight=rule, loss="focal", max_epochs=1).fit(IMAGES, LABELS)
    assert len(model.net_.criterion_.loss.loss.class_weight) == 3


def test_median_frequency_counts_the_images_that_hold_a_class():
    labels = [np.zeros((4, 5), int), np.zeros((4, 5), int)]
    labels[0][0, :4] = 1
    labels[1][:2], labels[1][3] = 2, -1
    images = [np.zeros((4, 5, 3), np.uint8)] * 2
    survey = Pictures(TrainingSet.read(images, labels, "dtype", None)).survey
    np.testing.assert_array_equal(survey.counts, [21, 4, 10])
    np.testing.assert_array_equal(survey.around, [35, 20, 15])
    np.testing.assert_array_equal(survey.images, [2, 1, 1])


def test_weights_of_classes_by_value_or_in_order():
    values = [np.array([3, 7, 9])[each] for each in LABELS]
    for given, expected in (({7: 2.5}, [1, 2.5, 1]), ([1, 2, 3], [1, 2, 3])):
        model = quick(class_weight=given, max_epochs=1).fit(IMAGES, values)
        assert list(model.net_.criterion_.loss.loss.class_weight) == expected


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"loss": "hinge"}, ValueError, "'loss' parameter"),
        ({"loss": len}, TypeError, "loss is a builtin_function.*expected a name or a torch"),
        ({"loss": CrossEntropy(), "class_weight": "balanced"}, ValueError, "give the weights to"),
        ({"loss": "generalized_dice", "class_weight": [1, 1, 1]}, ValueError, "takes no weights"),
        ({"class_weight": {8: 1.0}}, ValueError, r"names \[8\], but the classes are \[0, 1, 2\]"),
        ({"class_weight": [1, 2]}, ValueError, r"shape \(2,\), but the classes are \[0, 1, 2\]"),
        ({"precision": "float16"}, ValueError, "precision='float16' is for GPUs"),
        ({"patience": 3}, ValueError, "patience=3 without validation"),
        ({"validation": (1, 2, 3)}, ValueError, "validation has 3 parts"),
        ({"crop_size": (8, 8, 8)}, ValueError, r"crop_size=\(8, 8, 8\); .* 2 axes"),
        ({"network": nn.Conv2d(3, 3, 1), "network_options": None, "encoder_lr_factor": 0.1},
         ValueError, "Conv2d has no encoder"),
        ({"network": "unet3d", "network_options": None}, ValueError, "UNet3D segments volumes"),
        ({"network": nn.Conv2d(3, 6, 1), "network_options": None},
         ValueError, "the network has 6 outputs, but y has 3 classes; make it"),
        ({"network": nn.Conv2d(3, 3, 2), "network_options": None},
         ValueError, r"output is \(2, 3, 15, 15\); expected logits \(B, L, H, W\)"),
        ({"tile": (8, 8, 8)}, ValueError, r"tile=\(8, 8, 8\); .* 2 axes"),
        ({"tile": 8, "overlap": 8}, ValueError, "overlap=8 is not smaller than tile=8"),
    ],
)  # fmt: skip
def test_mistakes_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        quick(**wrong).fit(IMAGES, LABELS)


# The loop


@pytest.mark.parametrize(("epochs", "n_steps"), [(1, 1), (1, 2), (1, 3), (5, 8), (10, 46)])
def test_one_cycle_is_torchs(epochs, n_steps):
    total = max(3, epochs * n_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total, pct_start=max(0.1, 1.5 / total), cycle_momentum=False
    )
    ours = Schedule("one_cycle", epochs * n_steps)
    for step in range(total - 1):
        assert ours(step) == pytest.approx(peer.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        peer.step()


def test_poly_and_constant():
    poly = Schedule("poly", 10)
    assert [poly(0), poly(5), poly(10), poly(11)] == pytest.approx([1, 0.5**0.9, 0, 0])
    model = quick(schedule="constant").fit(IMAGES, LABELS)
    rates = [rate for epoch in model.net_.history[:, "batches", :, "event_lr"] for rate in epoch]
    assert set(rates) == {model.lr}


def test_a_batch_in_parts_makes_the_same_step():
    def linear(in_channels, n_classes):
        return nn.Conv2d(in_channels, n_classes, 1)

    changes = {"network": linear, "network_options": None, "batch_size": 6, "crops_per_image": 4}
    optimizer = functools.partial(torch.optim.SGD, momentum=0.9)
    made = [
        weights(quick(**changes, optimizer=optimizer, accumulate=parts).fit(IMAGES, LABELS))
        for parts in (1, 3)
    ]
    for name, value in made[0].items():
        torch.testing.assert_close(made[1][name], value, rtol=1e-4, atol=1e-6)


class LargestGradient(Callback):
    def __init__(self):
        self.norms = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        total = sum(p.grad.square().sum() for _, p in named_parameters if p.grad is not None)
        self.norms.append(float(total.sqrt()))


def test_gradients_are_clipped_by_skorchs_callback():
    callbacks = [("clip", GradientNormClipping(0.01)), ("seen", LargestGradient())]
    model = quick(callbacks=callbacks, accumulate=2).fit(IMAGES, LABELS)
    norms = dict(model.net_.callbacks_)["seen"].norms
    assert len(norms) == 6
    assert max(norms) <= 0.01 * 1.001


def test_bfloat16_learns_as_well():
    model = quick(precision="bfloat16", max_epochs=8, crops_per_image=8, lr=1e-2)
    assert model.fit(IMAGES, LABELS).score(IMAGES, LABELS) > 0.9
    halved = model.predict_proba(IMAGES)[0]
    exact = model.set_params(precision="float32").predict_proba(IMAGES)[0]
    assert 0 < np.abs(halved - exact).max() < 0.05
    assert next(model.net_.module_.parameters()).dtype == torch.float32


def dilated(in_channels, n_classes):
    """What torch's bfloat16 with channels last gives garbage for: 24 channels, dilated."""
    middle = nn.Conv2d(24, 24, 3, padding=2, dilation=2)
    apart = nn.Conv2d(24, 24, 3, padding=3, dilation=3, groups=24)
    first, last = nn.Conv2d(in_channels, 24, 1), nn.Conv2d(24, n_classes, 1)
    return nn.Sequential(first, middle, nn.ReLU(), apart, last)


def test_dilated_convolutions_in_bfloat16_keep_channels_first_on_a_cpu():
    plain, network = nn.Conv2d(3, 24, 3), dilated(3, 2)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert training_layout(network, 2, "bfloat16", cpu) == torch.contiguous_format
    for part, *others in (
        (plain, "bfloat16", cpu),
        (network, "float32", cpu),
        (network, "bfloat16", gpu),
    ):
        assert training_layout(part, 2, *others) == torch.channels_last
    changes = {"network": dilated, "network_options": None, "precision": "bfloat16"}
    module = quick(**changes, max_epochs=1).fit(IMAGES, LABELS).net_.module_
    assert all(value.is_contiguous() for value in module.parameters())


def test_small_volumes_are_convolved_in_float32_where_bfloat16_gives_garbage():
    convolution = nn.Conv3d(16, 16, 5, padding=2)
    cpu = torch.device("cpu")
    with wide_where_small(convolution, "bfloat16", cpu), torch.autocast("cpu"):
        assert convolution(torch.zeros(1, 16, 4, 6, 6)).dtype == torch.float32
        assert convolution(torch.zeros(1, 16, 5, 6, 6)).dtype == torch.bfloat16
    with torch.autocast("cpu"):
        assert convolution(torch.zeros(1, 16, 4, 6, 6)).dtype == torch.bfloat16
    with wide_where_small(convolution, "float32", cpu):
        assert "forward" not in vars(convolution)


def test_a_v_net_learns_in_bfloat16():
    volumes = [np.random.default_rng(i).random((16, 20, 18, 1)) for i in range(3)]
    labels = [(volume[..., 0] > 0.5).astype(int) for volume in volumes]
    options = {"width": 4, "convs": (1, 1, 1), "batch_norm": True}
    model = quick(network="vnet", network_options=options, precision="bfloat16", max_epochs=3)
    losses = model.fit(volumes, labels).net_.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert "forward" not in vars(model.net_.module_.head)


class Recording(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        self.seen_ = [*getattr(self, "seen_", []), batch[0].double().sum().item()]


def test_workers_make_the_same_crops():
    made = []
    for n_jobs in (None, 2):
        model = quick(n_jobs=n_jobs, callbacks=[("seen", Recording())]).fit(IMAGES, LABELS)
        made.append((dict(model.net_.callbacks_)["seen"].seen_, weights(model)))
    assert made[0][0] == made[1][0]
    assert same(made[0][1], made[1][1])


def test_workers_have_no_workers():
    model = quick(n_jobs=2, max_epochs=1)
    with parallel_config("loky", inner_max_num_threads=1):
        scores = cross_val_score(model, IMAGES, LABELS, cv=KFold(2), n_jobs=2, error_score="raise")
    expected = cross_val_score(quick(max_epochs=1), IMAGES, LABELS, cv=KFold(2))
    np.testing.assert_allclose(scores, expected)


# Auxiliary heads


class TwoHeads(nn.Module):
    def __init__(self, in_channels, n_classes, kind):
        super().__init__()
        self.main = nn.Conv2d(in_channels, n_classes, 1)
        self.coarse = nn.Conv2d(in_channels, n_classes, 2, stride=2)
        self.kind = kind

    def forward(self, images):
        main = self.main(images)
        if not self.training:
            return main
        if self.kind == "dict":
            return {"out": main, "aux": self.coarse(images), "none": None}
        return main, self.coarse(images)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_auxiliary_heads_learn_too(kind):
    options = {"kind": kind}
    model = quick(network=TwoHeads, network_options=options, max_epochs=1)
    other = copy.deepcopy(model).set_params(max_epochs=3).fit(IMAGES, LABELS)
    model.fit(IMAGES, LABELS)
    assert not torch.equal(model.net_.module_.coarse.weight, other.net_.module_.coarse.weight)
    assert model.predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_auxiliary_heads_of_adapted_networks_learn_as_well(kind):
    found = []
    for wrap in (lambda network: network, adapt):
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            start = TwoHeads(3, 3, kind)
        model = quick(network=wrap(start), network_options=None).fit(IMAGES, LABELS)
        trained = model.net_.module_
        found.append(getattr(trained, "network", trained).coarse.weight)
        assert not torch.equal(found[-1], start.coarse.weight)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_auxiliary_heads_of_bisenet():
    options = {"width": 4, "auxiliary": True}
    loss = DeepSupervision(CrossEntropy(), [1.0, 1.0, 1.0])
    start = BiSeNet(3, 3, **options)
    model = quick(network=start, network_options=None, loss=loss, max_epochs=1).fit(IMAGES, LABELS)
    before, after = start.auxiliary.state_dict(), model.net_.module_.auxiliary.state_dict()
    assert not torch.equal(before["0.1.weight"], after["0.1.weight"])


# Volumes


def volumes():
    images, labels = halves(((10, 12, 14), (8, 10, 12)), channels=1)
    return [image[..., 0] for image in images], labels


@pytest.mark.parametrize(
    ("network", "options"),
    [("unet3d", {"width": 4, "depth": 1}), ("vnet", {"width": 4, "convs": (1, 1, 1)})],
)
def test_networks_learn_volumes(network, options):
    X, y = volumes()
    model = quick(
        network=network,
        network_options=options,
        augment=Augmentation("dihedral", scale=(0.8, 1.25)),
        crop_size=(8, 12, 12),
        crops_per_image=8,
        max_epochs=10,
        lr=1e-2,
    ).fit(X, y)
    assert model.spatial_ndim_ == 3
    assert mean_iou(y, model.predict(X)) > 0.6


def test_pictures_networks_refuse_volumes_with_advice():
    with pytest.raises(ValueError, match=r"y\[0\] is a volume .* UNet .* pass the planes as"):
        quick().fit(*volumes())


def test_shapes_of_crops():
    assert crop_shape(64, (40, 50)) == (50, 50)
    assert crop_shape(64, (20, 80, 70)) == (20, 64, 64)
    assert crop_shape((32, 99), (40, 50)) == (32, 50)


# Augmentation


def ramps(shape):
    return np.stack(np.indices(shape), axis=-1).astype(np.float32)


@pytest.mark.parametrize(
    ("before", "after"), [((8, 12), (16, 24)), ((16, 20), (8, 10)), ((4, 6, 8), (8, 12, 16))]
)
def test_zoom_moves_colours_and_labels_together(before, after):
    labels = np.arange(np.prod(before)).reshape(before)
    colors, found = zoomed(ramps(before), labels, after)
    assert (colors.shape, found.shape) == ((*after, len(before)), after)
    expected = np.stack(np.unravel_index(found, before), axis=-1)
    inner = (slice(2, -2),) * len(after)
    assert np.abs(colors[inner] - expected[inner]).max() <= 0.76


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"symmetry": "round"}, "symmetry='round'; expected one of 'upright'"),
        ({"scale": (2.0, 1.0)}, r"scale=\(2.0, 1.0\); expected two factors"),
        ({"scale": 2.0}, "scale=2.0; expected two factors"),
        ({"contrast": 1.5}, "contrast=1.5"),
        ({"tint": -1}, "tint=-1"),
    ],
)
def test_augmentations_mistakes_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        Augmentation(**wrong)


def crops_of(images, labels, augment, size=(12, 12), seed=0, moments=None):
    pictures = Pictures(TrainingSet.read(images, labels, "dtype", None))
    moments = moments or (pictures.survey.mean, pictures.survey.std)
    return Crops(
        pictures, moments=moments, size=size, crops_per_image=2, augment=augment, seed=seed
    )


def test_crops_are_standardised_as_the_network_expects():
    own = crops_of(IMAGES, LABELS, Augmentation(contrast=0.3, brightness=0.3))
    mean, std = own.moments
    expected = np.full(3, 100, np.float32), np.full(3, 10, np.float32)
    other = crops_of(IMAGES, LABELS, own.augment, moments=expected)
    for number in range(4):
        colors = np.moveaxis(own[number][0], 0, -1) * std + mean
        np.testing.assert_allclose(
            np.moveaxis(other[number][0], 0, -1), (colors - 100) / 10, rtol=0, atol=1e-3
        )


def test_networks_that_standardise_are_given_plain_colours():
    network = adapt(nn.Conv2d(3, 3, 1), mean=(90.0, 100.0, 110.0), std=50.0)
    model = quick(network=network, network_options=None, validation=0.3).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(model.mean_, [0, 0, 0])
    np.testing.assert_array_equal(model.std_, [1, 1, 1])
    more = model.partial_fit(IMAGES, LABELS)
    np.testing.assert_array_equal(more.mean_, [0, 0, 0])


def test_networks_that_expect_other_channels_are_refused():
    network = adapt(nn.Conv2d(3, 2, 1))
    network.input_mean, network.input_std = (1.0, 2.0), (1.0, 2.0)
    with pytest.raises(ValueError, match="network expects .* 2 channels, but the images have 3"):
        quick(network=network, network_options=None).fit(IMAGES, LABELS)


@pytest.mark.filterwarnings("ignore:y seems to number objects")  # every pixel is its own class
def test_scale_shows_more_or_less():
    labels = [np.arange(40 * 40).reshape(40, 40)]
    images = [np.zeros((40, 40, 3), np.uint8)]
    for scale, extent in ((0.5, 24), (1.0, 12), (2.0, 6)):
        crops = crops_of(images, labels, Augmentation("none", scale=(scale, scale)))
        found = crops[0][1]
        rows = np.unique(found[found >= 0] // 40)
        assert rows.max() - rows.min() + 1 >= extent - 2
        assert rows.max() - rows.min() + 1 <= extent


def test_a_crop_depends_on_its_number_alone():
    first, second = (crops_of(IMAGES, LABELS, Augmentation(scale=(0.5, 2))) for _ in range(2))
    for number in (5, 0, 3):
        for one, other in zip(first[number], second[number], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0][0], first[len(first)][0])


def test_pictures_beyond_the_memory_are_read_again():
    training = TrainingSet.read(IMAGES, LABELS, "dtype", None)
    held, unheld = Pictures(training), Pictures(training, memory=0)
    for one, other in zip(list(held), list(unheld), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert held.survey.counts.tolist() == unheld.survey.counts.tolist()


# Validation


def test_validation_is_recorded_and_the_best_weights_come_back():
    model = quick(validation=(IMAGES[:1], LABELS[:1]), max_epochs=6, lr=0.03, schedule="constant")
    model.fit(IMAGES[1:], LABELS[1:])
    scores = model.net_.history[:, "valid_mean_iou"]
    assert model.score(IMAGES[:1], LABELS[:1]) == pytest.approx(max(scores))
    best = [score == max(scores[: i + 1]) for i, score in enumerate(scores)]
    assert [bool(row) for row in model.net_.history[:, "valid_mean_iou_best"]] <= best
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()


def test_a_share_of_the_images_is_held_out():
    model = quick(validation=0.3, crops_per_image=1, batch_size=1).fit(IMAGES, LABELS)
    assert len(model.net_.history[0, "batches"]) == 2
    with pytest.raises(ValueError, match="expected at least two images"):
        quick(validation=0.3).fit(IMAGES[:1], LABELS[:1])


@pytest.mark.parametrize("seed", range(4))
def test_only_images_with_labels_are_held_out(seed):
    labels = [LABELS[0], np.full_like(LABELS[1], -1), LABELS[2]]
    model = quick(validation=0.3, max_epochs=1, random_state=seed).fit(IMAGES, labels)
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()
    with pytest.raises(ValueError, match="0.3 of one image with labels; expected at least two"):
        quick(validation=0.3).fit(IMAGES, [labels[0], labels[1], np.full_like(LABELS[2], -1)])


def test_patience_ends_the_training():
    model = quick(validation=(IMAGES, LABELS), patience=2, max_epochs=30, lr=1e-9)
    model.fit(IMAGES, LABELS)
    flags = [bool(flag) for flag in model.net_.history[:, "valid_mean_iou_best"]]
    assert len(flags) < 30
    assert flags[-2:] == [False, False]


def test_a_class_that_only_validation_has_counts_as_missed():
    held = [np.where(LABELS[0] == 2, 5, LABELS[0])]
    model = quick(validation=(IMAGES[:1], held), max_epochs=12, lr=1e-2).fit(IMAGES, LABELS)
    assert max(model.net_.history[:, "valid_mean_iou"]) <= 0.5 + 1e-9


def test_validation_pictures_are_not_kept():
    model = quick(validation=(IMAGES, LABELS)).fit(IMAGES, LABELS)
    assert dict(model.net_.callbacks_)["validation"].pictures is None


def test_progress_bar(capsys):
    quick(verbose=2, max_epochs=1).fit(IMAGES, LABELS)
    assert "0/3 [" in capsys.readouterr().err


def test_curves():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    model = quick(validation=(IMAGES, LABELS)).fit(IMAGES, LABELS)
    losses, scores = plot_history(model)
    found = losses.get_lines()[0].get_ydata()
    np.testing.assert_allclose(found, model.net_.history[:, "train_loss"])
    np.testing.assert_allclose(
        scores.get_lines()[0].get_ydata(), model.net_.history[:, "valid_mean_iou"]
    )
    plt.close("all")


def test_median_frequency_is_the_losses():
    assert CLASS_WEIGHTS["median_frequency"] is median_frequency
