"""Checkpoints: files from which an interrupted training resumes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from skorch.callbacks import Callback
from skorch.history import History

from hybridseg.deep.training.divergence import lowest_is_last
from hybridseg.deep.training.identity import CHECKSUM
from hybridseg.files.atomic import atomic_write

#: The name of the checkpoint file in the directory of a training.
_NAME = "training.pt"
#: The longest description of a setting that an error message shows, in characters.
_MAX_LEGIBLE = 60


class Checkpoint(Callback):
    """Write a checkpoint file after each epoch, from which the training can resume.

    The file holds the weights, the states of the loss, the optimizer, the learning-rate schedule
    and the gradient scaler, the history, and the best weights so far. It needs no state of a random
    generator, because the random numbers of an epoch depend only on the seed and its number. It
    consists of tensors and plain values, so reading it runs no code.

    Parameters
    ----------
    directory : path
    identity : mapping of str to str
        Fingerprints of the training's settings and images. A training with other fingerprints may
        not resume from the file.
    seed : int
        The seed of the training.
    """

    def __init__(self, directory: Any, identity: dict[str, str], seed: int) -> None:
        self.directory = directory
        self.identity = identity
        self.seed = seed

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write the file, which replaces the previous one atomically."""
        callbacks = dict(net.callbacks_)
        validation = callbacks.get("validation")
        saved = {
            "identity": self.identity,
            "seed": self.seed,
            "history": json.dumps(net.history.to_list(), default=float),
            "module": net.module_.state_dict(),
            "criterion": net.criterion_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "steps": callbacks["schedule"].lr_scheduler_.last_epoch,
            "scaler": net.scaler_.state_dict(),
            "best": {} if validation is None else validation.best_,
        }
        if callbacks["safeguard"].kept_ and not lowest_is_last(net.history):
            saved["kept"] = callbacks["safeguard"].kept_  # else it is the module itself
        with atomic_write(Path(self.directory) / _NAME) as file:
            torch.save(saved, file)


class Resume(Callback):
    """Restore the state of a training from a checkpoint when the training begins."""

    def __init__(self, saved: dict[str, Any]) -> None:
        self.saved = saved

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Load the checkpoint into the objects that skorch has made."""
        saved, self.saved = self.saved, {}
        net.history = saved["history"]
        callbacks = dict(net.callbacks_)
        net.module_.load_state_dict(saved["module"])
        if "criterion" in saved:  # files of earlier versions lack it
            net.criterion_.load_state_dict(saved["criterion"])
        net.optimizer_.load_state_dict(saved["optimizer"])
        net.scaler_.load_state_dict(saved["scaler"])
        schedule = callbacks["schedule"].lr_scheduler_
        schedule.last_epoch = saved["steps"]
        schedule._last_lr = [group["lr"] for group in net.optimizer_.param_groups]
        callbacks["safeguard"].kept_ = saved.get("kept", saved["module"])
        if "validation" in callbacks:
            callbacks["validation"].best_ = saved["best"]


def read_checkpoint(directory: Any) -> dict[str, Any] | None:
    """Read the checkpoint of a training from its directory; None if there is no checkpoint.

    The directory is created if it does not exist.

    Raises
    ------
    ValueError
        The directory cannot be created or written to, or the file is not a valid checkpoint.
    """
    path = Path(directory) / _NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint={os.fspath(directory)!r} cannot be created or written to ({error}); "
            f"expected a writable directory: pass another directory."
        ) from error
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved["history"] = history_of(saved["history"])
    except Exception as error:
        raise ValueError(
            f"checkpoint: {path} cannot be read ({error}); delete it, or pass another directory."
        ) from error
    return saved


def history_of(text: str) -> History:
    """The history of a training from its JSON text."""
    return History(json.loads(text))


def check_identity(saved: Mapping[str, Any], identity: Mapping[str, str], directory: Any) -> None:
    """Refuse a checkpoint of another training.

    Parameters
    ----------
    saved : mapping
        The checkpoint.
    identity : mapping of str to str
        Fingerprints of the settings and images of this training.
    directory : path
        The directory of the checkpoint.

    Raises
    ------
    ValueError
        A fingerprint differs; the message names the settings.
    """
    before = saved["identity"]
    names = {*before, *identity}
    changed = sorted(name for name in names if before.get(name) != identity.get(name))
    if changed:
        raise ValueError(
            f"checkpoint={os.fspath(directory)!r} holds another training: {', '.join(changed)} "
            f"differ{_difference(before, identity, changed)}; pass the settings and images of that "
            f"training, or another directory: each training needs its own."
        )


def _difference(before: Mapping[str, str], now: Mapping[str, str], names: list[str]) -> str:
    """The old and new value of the first of these settings whose description is legible."""
    for name in names:
        pair = before.get(name, "absent"), now.get(name, "absent")
        if max(map(len, pair)) < _MAX_LEGIBLE and CHECKSUM not in "".join(pair):
            return f" ({name} was {pair[0]}, now {pair[1]})"
    return ""
