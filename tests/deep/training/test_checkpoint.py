"""Trainings that go on after a kill, and those that must not."""

import functools

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from hybridseg.losses import CrossEntropy, Focal, SoftDice
from hybridseg.networks import UNet
from tests.deep.subjects import (
    IMAGES,
    LABELS,
    SMALL,
    LearnedScale,
    Shifted,
    quick,
    same,
    shifting,
    weights,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Other(UNet):
    """Networks that differ by an attribute alone, with equal weights."""

    def __init__(self, kind):
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            super().__init__(3, 3, **SMALL)
        self.kind = kind


def linear(in_channels, n_classes, size=1):
    return torch.nn.Conv2d(in_channels, n_classes, size, padding=size // 2)


class Kill(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, training, **kwargs):
        if len(net.history) == self.epoch and len(net.history[-1, "batches"]) == 2:
            raise MemoryError("killed")


@pytest.mark.parametrize("changes", [{}, {"validation": (IMAGES, LABELS), "schedule": "poly"}])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_training_goes_on_bit_by_bit(tmp_path, changes, epoch):
    options = {"width": 4, "depth": 1, "dropout": 0.3}
    settings = changes | {"network_options": options, "max_epochs": 4, "encoder_lr_factor": 0.5}
    whole = quick(**settings).fit(IMAGES, LABELS)
    broken = quick(**settings, checkpoint=tmp_path)
    with pytest.raises(MemoryError, match="killed"):
        broken.set_params(callbacks=[("kill", Kill(epoch))]).fit(IMAGES, LABELS)
    resumed = broken.set_params(callbacks=None).fit(IMAGES, LABELS)
    assert same(weights(whole), weights(resumed))
    for name in ("train_loss", *(["valid_mean_iou"] if changes else [])):
        assert whole.net_.history[:, name] == resumed.net_.history[:, name]
    again = quick(**settings, checkpoint=tmp_path).fit(IMAGES, LABELS)
    assert same(weights(whole), weights(again))
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


def test_a_loss_that_is_learned_goes_on_as_well(tmp_path):
    settings = {"loss": LearnedScale(), "max_epochs": 3, "lr": 0.05, "weight_decay": 0.5}
    whole = quick(**settings).fit(IMAGES, LABELS)
    broken = quick(**settings, checkpoint=tmp_path)
    with pytest.raises(MemoryError, match="killed"):
        broken.set_params(callbacks=[("kill", Kill(2))]).fit(IMAGES, LABELS)
    resumed = broken.set_params(callbacks=None).fit(IMAGES, LABELS)
    assert same(weights(whole), weights(resumed))
    scales = [model.net_.criterion_.loss.loss.scale.item() for model in (whole, resumed)]
    assert scales[0] == scales[1] != 1


def test_a_checkpoint_keeps_the_seed_of_an_unseeded_training(tmp_path):
    first = quick(random_state=None, checkpoint=tmp_path).fit(IMAGES, LABELS)
    second = quick(random_state=None, checkpoint=tmp_path).fit(IMAGES, LABELS)
    assert same(weights(first), weights(second))


def test_early_stopping_and_checkpoints_agree(tmp_path):
    settings = {"validation": (IMAGES, LABELS), "patience": 1, "max_epochs": 20, "lr": 1e-9}
    first = quick(**settings, checkpoint=tmp_path).fit(IMAGES, LABELS)
    second = quick(**settings, checkpoint=tmp_path).fit(IMAGES, LABELS)
    assert len(first.net_.history) == len(second.net_.history) < 20
    assert same(weights(first), weights(second))


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    model = quick(checkpoint=tmp_path).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="holds another training: lr differ .lr was 0.003, now"):
        quick(checkpoint=tmp_path, lr=0.1).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="holds another training: images"):
        quick(checkpoint=tmp_path).fit(IMAGES[:2], LABELS[:2])
    with pytest.raises(ValueError, match="holds another training: weights"):
        model.partial_fit(IMAGES, LABELS)
    figures = r"checkpoint='.*' holds another training: labels differ; pass the settings"
    with pytest.raises(ValueError, match=figures):
        quick(checkpoint=tmp_path).fit(IMAGES, [each[:, ::-1] for each in LABELS])
    (tmp_path / "training.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"(?s)training.pt cannot be read .* delete it"):
        quick(checkpoint=tmp_path).fit(IMAGES, LABELS)


HELD = IMAGES[:2], LABELS[:2]


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"loss": Focal(gamma=0.0)}, {"loss": Focal(gamma=5.0)}, "loss"),
        ({"loss": CrossEntropy() + SoftDice()}, {"loss": CrossEntropy() + 2 * SoftDice()}, "loss"),
        ({"random_state": np.int64(0)}, {"random_state": np.int64(1)}, "random_state"),
        ({"validation": HELD}, {"validation": (IMAGES[1:], LABELS[1:])}, "validation images"),
        (
            {"validation": HELD},
            {"validation": (HELD[0], [each[::-1] for each in HELD[1]])},
            "validation labels",
        ),
        (
            {"validation": (HELD[0], [each % 2 for each in HELD[1]])},
            {"validation": (HELD[0], [each % 2 * 2 for each in HELD[1]])},
            "validation labels",
        ),
        ({"validation": HELD}, {"validation": None}, "validation images"),
        ({"network": Other(1)}, {"network": Other(2)}, "network"),
        ({"augment": Shifted(1)}, {"augment": Shifted(2)}, "augment"),
        ({"augment": Shifted(1).shift}, {"augment": Shifted(2).shift}, "augment"),
        (
            {"augment": lambda colors, labels, rng: (colors + 1, labels)},
            {"augment": lambda colors, labels, rng: (colors + 2, labels)},
            "augment",
        ),
        ({"augment": shifting(1)}, {"augment": shifting(1, sign=-1)}, "augment"),
        (
            {"optimizer": lambda parameters, **rates: torch.optim.SGD(parameters, **rates)},
            {"optimizer": lambda parameters, **rates: torch.optim.Adam(parameters, **rates)},
            "optimizer",
        ),
        (
            {"network": functools.partial(linear, size=1)},
            {"network": functools.partial(linear, size=3)},
            "network",
        ),
    ],
)
def test_a_checkpoint_knows_what_else_makes_a_training(tmp_path, before, now, named):
    options = {"max_epochs": 1, "checkpoint": tmp_path}
    if "network" in before:
        options["network_options"] = None
    first = quick(**options | before).fit(IMAGES, LABELS)
    again = quick(**options | before).fit(IMAGES, LABELS)
    assert same(weights(first), weights(again))
    with pytest.raises(ValueError, match=f"holds another training: {named}.* differ"):
        quick(**options | now).fit(IMAGES, LABELS)


def test_equal_seeds_of_other_types_are_one_training(tmp_path):
    quick(checkpoint=tmp_path, random_state=np.int64(3)).fit(IMAGES, LABELS)
    quick(checkpoint=tmp_path, random_state=3).fit(IMAGES, LABELS)


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="checkpoint='.*file' cannot be created or written to"):
        quick(checkpoint=tmp_path / "file").fit(IMAGES, LABELS)


def test_checkpoints_tell_classes_apart(tmp_path):
    maps = [np.array([2, 5, 9])[y] for y in LABELS]
    settings = {"checkpoint": tmp_path, "max_epochs": 1}
    quick(**settings).fit(IMAGES, maps)
    quick(**settings, classes=[2, 5, 9]).fit(IMAGES, maps)  # the same training
    with pytest.raises(ValueError, match="holds another training: .*classes"):
        quick(**settings, classes=[2, 5, 9, 12]).fit(IMAGES, maps)


def test_checkpoints_from_before_a_parameter_was_there_go_on(tmp_path):
    maps = [np.array([2, 5, 9])[y] for y in LABELS]
    settings = {"checkpoint": tmp_path, "max_epochs": 1}
    quick(**settings).fit(IMAGES, maps)
    saved = torch.load(tmp_path / "training.pt")
    del saved["identity"]["spacing"]
    torch.save(saved, tmp_path / "training.pt")
    quick(**settings).fit(IMAGES, maps)
    with pytest.raises(ValueError, match="holds another training: spacing differ"):
        quick(**settings, spacing=1.0).fit(IMAGES, maps)
