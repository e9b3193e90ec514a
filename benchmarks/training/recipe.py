"""Training in stages, with the settings of each and the time of all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from skorch.callbacks import Callback

from hybridseg import DeepSegmenter


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    title : str
    settings : dict
        Of DeepSegmenter.
    stages : sequence of dict
        Settings that change from stage to stage; each goes on from the weights of the one before.
    class_weight : callable, optional
        Gives the classes' weights from the label maps.
    """

    title: str
    settings: dict[str, Any]
    stages: Sequence[dict[str, Any]] = field(default=({},))
    class_weight: Any = None


class ProcessorTime(Callback):
    """Keep the processor seconds of each epoch in the history, which survives an interruption."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.begun = time.process_time()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        net.history.record("cpu_seconds", time.process_time() - self.begun)


def train(
    recipe: Recipe, X: Any, y: Any, drafts: Path, *, quick: bool
) -> tuple[DeepSegmenter, dict[str, Any]]:
    """Train stage by stage; finished stages of an interrupted run are read from ``drafts``."""
    settings = dict(recipe.settings)
    if recipe.class_weight is not None:
        settings["class_weight"] = recipe.class_weight(y)
    model = DeepSegmenter(random_state=0, verbose=1, callbacks=[ProcessorTime()], **settings)
    seconds, crops, losses = 0.0, 0, []
    for number, stage in enumerate(recipe.stages):
        model.set_params(**stage, warm_start=number > 0, checkpoint=drafts / f"stage{number}")
        if quick:
            model.set_params(max_epochs=max(1, model.max_epochs // 100))
        model.fit(X, y)
        history = model.net_.history
        seconds += sum(history[:, "cpu_seconds"])
        losses += history[:, "train_loss"]
        crops += len(history) * len(X) * (model.crops_per_image or 1)
    model.set_params(checkpoint=None, callbacks=None, warm_start=False, verbose=0)
    return model, {
        "parameters": sum(p.numel() for p in model.net_.module_.parameters()),
        "cpu_minutes": round(seconds / 60, 1),
        "threads": torch.get_num_threads(),
        "crops": crops,
        "losses": [round(loss, 4) for loss in losses],
    }
