"""Trainings that go on: after a kill, on other images, with other classes."""

import copy
import functools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from hybridseg.deep.training.identity import described
from hybridseg.deep.training.loop import encoder_of
from hybridseg.deep.training.start import Trained, continued_module, make_module
from hybridseg.losses import CrossEntropy, Focal, SoftDice
from hybridseg.networks import UNet, adapt
from tests.deep.subjects import IMAGES, LABELS, SMALL, LearntScale, quick, same, weights
from tests.networks.foreign import tiny_segformer

pytestmark = pytest.mark.usefixtures("one_torch_thread")


# A training that is killed


class Other(UNet):
    """Networks that differ by an attribute alone, with equal weights."""

    def __init__(self, kind):
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            super().__init__(3, 3, **SMALL)
        self.kind = kind


class Shifted:
    def __init__(self, by):
        self.by = by

    def __call__(self, colors, labels, rng):
        return colors + self.by, labels

    def shift(self, colors, labels, rng):
        return self(colors, labels, rng)


def shifting(by, sign=1):
    return lambda colors, labels, rng: (colors + sign * by, labels)


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


def test_a_loss_that_is_learnt_goes_on_as_well(tmp_path):
    settings = {"loss": LearntScale(), "max_epochs": 3, "lr": 0.05, "weight_decay": 0.5}
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


def test_settings_are_described_alike_in_every_process():
    value = {"b": np.arange(200), "a": [SoftDice(), Shifted(2), {1.5, 0.5}], "c": str.upper}
    assert described(value) == described(copy.deepcopy(value))
    assert described(value) != described(value | {"b": np.arange(1, 201)})
    assert "0x" not in described(value)
    ring = Shifted(1)
    ring.by = [ring]
    assert described(ring) == described(copy.deepcopy(ring))


FUNCTIONS = """
    from functools import lru_cache, partial, wraps

    import numpy as np

    STRENGTH = 0.5

    def around(by, kind=frozenset("abcdef")):
        def inner(x, *, more=by):
            return [x + by + STRENGTH + (y in {"p", "q", "r"}) for y in kind], helped(more)
        return inner

    def helped(x):
        return helped(x - 1) if x else np.sum(x)

    @lru_cache
    def cached(x):
        return x * 3

    @wraps(helped)
    def wrapped(x):
        return cached(x)

    class Way:
        def go(self, x):
            return x

    found = [around(1), partial(around(2), more=3), cached, wrapped, Way().go, lambda x: x @ x]
    found.append(lambda x: STRENGTH * x if x else (lambda y: helped(y)))
"""


def described_elsewhere(*texts):
    """What another process, with other addresses and another order of sets, calls them."""
    words = "from hybridseg.deep.training.identity import described\n"
    for text in texts:
        words += f"{textwrap.dedent(text)}\nfor each in found: print(described(each))\n"
    found = subprocess.run(
        [sys.executable, "-c", words],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    return np.reshape(lines, (len(texts), -1)).tolist()


def test_functions_are_described_by_what_they_do():
    changed = FUNCTIONS.replace("0.5", "0.6").replace("x * 3", "x * 4").replace("x @ x", "x + x")
    here = {"__name__": "__main__"}
    exec(textwrap.dedent(FUNCTIONS), here)
    before = [described(each) for each in here["found"]]
    again, now = described_elsewhere(FUNCTIONS, changed)
    assert len(set(before)) == 7
    assert again == before
    assert [k for k in range(7) if before[k] == now[k]] == [4]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (shifting(1), shifting(2)),
        (shifting(np.zeros(200)), shifting(np.ones(200))),
        (lambda x: x.real, lambda x: x.imag),
        (lambda x, y=1: x, lambda x, y=2: x),
        (lambda x, *, y=1: x, lambda x, *, y=2: x),
        (lambda: lambda: 1, lambda: lambda: 2),
        (Shifted(1).shift, Shifted(2).shift),
        (functools.partial(shifting, 1), functools.partial(shifting, 2)),
        (functools.partial(shifting, sign=1), functools.partial(shifting, by=1)),
        (functools.lru_cache(lambda: 1), functools.lru_cache(lambda: 2)),
    ],
)
def test_functions_that_differ_are_told_apart(one, other):
    assert described(one) == described(one)
    assert described(one) != described(other)


def test_functions_that_know_themselves_or_nothing_yet_are_described():
    def loop(n):
        return loop(n - 1) if n else late

    assert described(loop) == described(loop)
    late = 1
    assert loop(2) == late


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="checkpoint='.*file' is no directory that can be made"):
        quick(checkpoint=tmp_path / "file").fit(IMAGES, LABELS)


# Fine-tuning


def test_warm_start_and_partial_fit_go_on():
    model = quick(max_epochs=4, lr=1e-2).fit(IMAGES, LABELS)
    before, mean = weights(model), model.mean_
    model.set_params(lr=1e-12, weight_decay=0.0, encoder_lr_factor=0)
    for train in (model.partial_fit, model.set_params(warm_start=True).fit):
        train([255 - image for image in IMAGES], LABELS)
        assert len(model.net_.history) == 4
        torch.testing.assert_close(weights(model)["head.weight"], before["head.weight"])
        np.testing.assert_array_equal(model.mean_, mean)
    assert quick().partial_fit(IMAGES, LABELS).net_.module_ is not None
    fresh = quick(warm_start=True).fit(IMAGES, LABELS)
    assert same(weights(fresh), weights(quick().fit(IMAGES, LABELS)))


def test_a_frozen_encoder_stays_as_it_is():
    model = quick().fit(IMAGES, LABELS)
    before = weights(model)
    model.set_params(encoder_lr_factor=0).partial_fit(IMAGES, LABELS)
    after = weights(model)
    assert same({k: v for k, v in after.items() if k.startswith("down.")}, before)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert all(p.requires_grad for p in model.net_.module_.parameters())


def test_the_encoders_own_rate():
    model = quick(encoder_lr_factor=0.25, schedule="constant").fit(IMAGES, LABELS)
    groups = model.net_.optimizer_.param_groups
    assert [group["lr"] for group in groups] == [model.lr, model.lr / 4]
    encoder = sum(p.numel() for p in encoder_of(model.net_.module_).parameters())
    assert sum(p.numel() for p in groups[1]["params"]) == encoder
    everything = sum(p.numel() for p in model.net_.module_.parameters())
    assert sum(p.numel() for group in groups for p in group["params"]) == everything


def test_adapted_networks_have_encoders():
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    theirs = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    assert encoder_of(adapt(theirs)) is theirs.backbone
    theirs = tiny_segformer(3)
    assert encoder_of(adapt(theirs)) is encoder_of(theirs) is theirs.segformer
    with pytest.raises(ValueError, match="Conv2d has no encoder"):
        encoder_of(adapt(torch.nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("unet", SMALL),
        ("fcn32s", {"encoder": "resnet18", "head_channels": 8}),
        ("enet", {"width": 8}),
        ("segnet", {"width": 4}),
    ],
)
def test_new_classes_get_a_new_head_that_keeps_the_old_ones(network, options):
    old, new = np.array([2, 5, 9]), np.array([1, 2, 9, 10])
    before = make_module(network, options, 3, 3).eval()
    trained = Trained(before, old, np.zeros(3), np.ones(3))
    after = continued_module(network, options, 3, new, trained).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        found, expected = after(images), before(images)
    assert found.shape[1] == 4
    torch.testing.assert_close(found[:, [1, 2]], expected[:, [0, 2]])


def test_new_classes_read_no_weights_again():
    read = []

    def make(in_channels, n_classes, **options):
        read.append(options)
        return UNet(in_channels, n_classes, **SMALL)

    options = {"weights": "a.pth", "encoder_weights": "b.pth"}
    model = quick(network=make, network_options=options, max_epochs=1).fit(IMAGES, LABELS)
    model.partial_fit(IMAGES, LABELS, classes=[0, 1, 2, 7])
    assert read == [options, *[dict.fromkeys(options)] * 2]


def test_partial_fit_on_new_classes():
    model = quick().fit(IMAGES, LABELS)
    model.partial_fit(IMAGES, [np.array([2, 7, 1])[each] for each in LABELS])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2, 7])
    assert model.predict_proba(IMAGES)[0].shape[-1] == 4
    model.partial_fit(IMAGES, LABELS, classes=[0, 1, 2])
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    with pytest.raises(ValueError, match=r"y holds the classes \[0, 1, 2\], but classes=\[0, 1\]"):
        model.partial_fit(IMAGES, LABELS, classes=[0, 1])
    with pytest.raises(ValueError, match="1 channels, but the network was trained on 2 axes and 3"):
        model.partial_fit([image[..., 0] for image in IMAGES], LABELS)
    module = quick(network=UNet(3, 3, **SMALL), network_options=None).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="module with a fixed number of outputs"):
        module.partial_fit(IMAGES, [each + 1 for each in LABELS])
