"""How a network learns to correct labels, and how held-out images judge it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from hybridseg.deep.boundary.band import Singles, Surroundings, band_pixels
from hybridseg.deep.boundary.corrections import corrected_band, corrections
from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.boundary.patches import Batch, Patch, draw_patches, n_affordable
from hybridseg.deep.prediction.device import as_device
from hybridseg.deep.prediction.inputs import Moments
from hybridseg.deep.training.augment import Augmentation
from hybridseg.deep.training.loop import Schedule, seeded
from hybridseg.inference.learned import Examples
from hybridseg.learning.examples import Part
from hybridseg.learning.folds import folds_of
from hybridseg.learning.gate import GateReport
from hybridseg.learning.judgment import judge
from hybridseg.learning.report import LearningReport, Step
from hybridseg.unary.cross_fit import block_folds
from hybridseg.validation import warn_caller

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: The extent of patches, and the reach of the network in widths of the band.
_SIDES, _REACH = {2: 48, 3: 24}, 1.5

#: The largest norm of a gradient; longer ones are shortened.
_MAX_NORM = 1.0

#: A network diverged if its loss rises by more than this factor.
_MAX_RISE = 3.0


@dataclass(frozen=True)
class Settings:
    """What a :class:`hybridseg.deep.BoundaryRefiner` says about learning, under the same names."""

    band: float | str
    hidden: int
    depth: int
    max_epochs: int
    n_patches: int
    patch_size: int | None
    batch_size: int
    lr: float
    augment: Augmentation
    gate: Any
    tolerance: float
    device: str


@dataclass(frozen=True, eq=False)
class _Given:
    """An image to judge by: what the network sees of it, and the corrections of each network."""

    around: Surroundings
    truth: Longs
    blocks: Longs
    added: dict[int, Singles] = field(default_factory=dict)


class BoundaryTask:
    """Learn from Scenes with costs: a network for each fold, the judgment, and the last network.

    Parameters
    ----------
    settings : Settings
    examples : Examples
    random : Generator
        Seeds weights, patches and batches.
    """

    def __init__(self, settings: Settings, examples: Examples, random: np.random.Generator) -> None:
        self.settings, self.examples, self.random = settings, examples, random
        self.device = as_device(settings.device)
        self.seed = int(random.integers(2**31))
        self.networks: list[BoundaryNetwork] = []
        self.steps: list[Step] = []
        self._patches: dict[Part, list[Patch]] = {}
        self._order = np.argsort(random.permutation(len(examples.scenes)))

    def run(self, groups: ArrayLike | None) -> tuple[BoundaryNetwork, float, LearningReport]:
        """Return the network, the strength that the gate chose, and the record.

        Raises
        ------
        TypeError, ValueError
            Label maps, classes or channels do not fit, or there are fewer than two groups.
        """
        began = time.perf_counter()
        settings, n_images = self.settings, len(self.examples.scenes)
        held: list[tuple[Doubles, Part]] = []
        for train, test in folds_of(settings.gate, n_images, groups, self.seed):
            self.networks.append(self._learn([Part(*each) for each in train]))
            point = np.array([len(self.networks) - 1, 1.0])
            held += [(point, Part(*each)) for each in test]
        gate: GateReport | None = None
        strength = 1.0
        if held:
            gate = judge(self, held, len(self.examples.classes), float(settings.tolerance))
            strength = gate.chosen
        everything = [Part(i, None) for i in range(n_images)]
        network = self._learn(everything if strength > 0 else [])
        report = LearningReport(
            params={"strength": strength},
            start={"strength": 0.0},
            steps=tuple(self.steps),
            gate=gate,
            objective="cross-entropy in the band",
            seconds=time.perf_counter() - began,
        )
        return network, strength, report

    def example(self, position: int, whole: bool) -> _Given:
        """Read an image to judge by."""
        truth, shape = self.examples.truth(position), self.examples.scenes[position].shape
        around = Surroundings.of(self.examples.scenes[position], self.settings.band)
        return _Given(around, truth.ravel(), self._blocks(shape).ravel())

    def predict(self, point: Doubles, example: _Given) -> NDArray[np.integer[Any]]:
        """Return the label indices of all pixels; a point is (number of the network, strength)."""
        around, number = example.around, int(point[0])
        labels = around.proba.argmax(axis=-1)
        if point[1] > 0:
            if number not in example.added:
                example.added[number] = corrections(self.networks[number], around)
            found = corrected_band(around, example.added[number], float(point[1]))
            labels[around.band] = found.argmax(axis=-1)
        return labels.ravel()

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the same network at a strength from 0, which corrects nothing, to 1."""
        return np.array([point[0], strength * point[1]])

    def _blocks(self, shape: tuple[int, ...]) -> Longs:
        """Return the block of each pixel if a single image is divided into folds, else 0."""
        if len(self.examples.scenes) > 1 or not isinstance(self.settings.gate, int | np.integer):
            return np.zeros(shape, np.int64)
        return block_folds(shape, int(self.settings.gate))

    def _learn(self, parts: Sequence[Part]) -> BoundaryNetwork:
        """Return a network that has learned from these parts; a new one if there are none."""
        seed = int(self.random.integers(2**31))
        network = self._new(seed)
        drawn = [patch for part in parts for patch in self._drawn(part, network.reach)]
        if parts and not drawn:
            warn_caller(
                "no pixel near a boundary of the incoming segmentation has a known label, so "
                "nothing was learned and the costs are returned as they come; label pixels near "
                "boundaries, or pass a larger band."
            )
        if not drawn:
            return network
        colors = [patch.colors.reshape(len(patch.colors), -1) for patch in drawn]
        joined = np.concatenate(colors, axis=1)
        network.mean.copy_(torch.from_numpy(joined.mean(axis=1, dtype=np.float64)))
        deviation = np.maximum(joined.std(axis=1, dtype=np.float64), 1.0)
        network.std.copy_(torch.from_numpy(deviation))
        steps = train(network, drawn, self.settings, np.random.default_rng(seed))
        self.steps += steps
        if not steps[-1].loss <= _MAX_RISE * steps[0].loss:  # also if it is not a number
            warn_caller(
                f"the network diverged, so it corrects nothing: the loss rose from "
                f"{steps[0].loss:.3g} to {steps[-1].loss:.3g}; expected a falling loss: lower "
                f"lr={self.settings.lr:g}, or scale the costs."
            )
            return self._new(seed)
        return network.eval()

    def _drawn(self, part: Part, reach: int) -> list[Patch]:
        """Return the patches of a part, which are drawn once and serve all folds."""
        if part in self._patches:
            return self._patches[part]
        n_images = len(self.examples.scenes)
        if self._order[part.position] >= self.settings.n_patches:
            return []
        scene, truth = self.examples.scenes[part.position], self.examples.truth(part.position)
        around = Surroundings.of(scene, self.settings.band)
        if part.blocks is not None:
            truth = np.where(np.isin(self._blocks(truth.shape), part.blocks), truth, -1)
        side = self.settings.patch_size or _SIDES[truth.ndim]
        n_all = n_affordable(self.settings.n_patches, around, side, reach)
        n_here = n_all // n_images + int(self._order[part.position] < n_all % n_images)
        self._patches[part] = draw_patches(
            around,
            truth,
            n_here,
            side=side,
            reach=reach,
            random=np.random.default_rng([self.seed, part.position]),
        )
        return self._patches[part]

    def _new(self, seed: int) -> BoundaryNetwork:
        scene = self.examples.scenes[0]
        colors = scene.colors
        ndim = colors.ndim - 1
        width = band_pixels(self.settings.band, scene.spacing, ndim)
        with seeded(seed, self.device):
            network = BoundaryNetwork(
                colors.shape[-1],
                len(self.examples.classes),
                ndim=ndim,
                hidden=self.settings.hidden,
                depth=self.settings.depth,
                reach=round(_REACH * width),
            )
        return network.to(self.device)


def train(
    network: BoundaryNetwork,
    patches: Sequence[Patch],
    settings: Settings,
    random: np.random.Generator,
) -> list[Step]:
    """Train a network on patches by Adam; the loss is the cross-entropy of known labels.

    The learning rate rises over the first tenth of the steps, and then falls to nearly 0.

    Returns
    -------
    list of Step
    """
    device, began = as_device(settings.device), time.perf_counter()
    size = min(settings.batch_size, len(patches))
    n_batches = len(patches) // size
    n_steps = settings.max_epochs * n_batches
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule("one_cycle", n_steps))
    moments = network.mean.cpu().numpy(), network.std.cpu().numpy()
    steps = []
    for number in range(n_steps):
        if number % n_batches == 0:
            order = random.permutation(len(patches))
        first = number % n_batches * size
        chosen = [
            augmented(patches[i], settings.augment, moments, random)
            for i in order[first : first + size]
        ]
        batch = Batch.of(chosen, device)
        optimizer.zero_grad()
        scores = batch.start + network(*batch.inputs) * batch.candidates
        loss = functional.cross_entropy(scores, batch.truth, ignore_index=-1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_NORM)
        optimizer.step()
        schedule.step()
        steps.append(Step(number, float(loss.detach()), time.perf_counter() - began))
    return steps


def augmented(
    patch: Patch, augment: Augmentation, moments: Moments, random: np.random.Generator
) -> Patch:
    """Return a patch after random mirroring and random changes of its colors.

    Parameters
    ----------
    patch : Patch
    augment : Augmentation
        Its ``scale`` and ``mirrored`` are not used.
    moments : (mean, std)
        Those of the channels, each (C,).
    random : Generator
    """
    ndim = patch.truth.ndim
    drawn = random.random(ndim + 1) < 0.5
    flips, swap = [False] * ndim, False
    if augment.symmetry == "upright":
        flips[-1] = bool(drawn[0])
    elif augment.symmetry == "dihedral":
        flips, swap = drawn[:ndim].tolist(), bool(drawn[ndim])
    mean, std = (values.reshape(-1, *(1,) * ndim) for values in moments)
    contrast = np.float32(random.uniform(1 - augment.contrast, 1 + augment.contrast))
    brightness = random.uniform(-augment.brightness, augment.brightness)
    tint = random.uniform(-augment.tint, augment.tint, mean.shape).astype(np.float32)
    shift = mean + (np.float32(brightness) + tint) * std
    return replace(patch, colors=(patch.colors - mean) * contrast + shift).turned(flips, swap)
