"""Published weights: state dicts are read from files, renamed, checked and loaded."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["load_published"]

#: Pairs of a pattern and the replacement of its matches; None drops the tensor.
Renames = Sequence[tuple[str, str | None]]


def load_published(
    module: nn.Module,
    weights: str | os.PathLike[str],
    renames: Renames = (),
    *,
    only: str | None = None,
) -> None:
    """Load a state dict, published or our own, from a file without running its code.

    Parameters
    ----------
    module : nn.Module
        Receives the weights.
    weights : str or path
        A state dict: ``.safetensors``, or a file written by ``torch.save``, also of a module that
        was wrapped in DataParallel.
    renames : sequence of (str, str or None), default=()
        Pairs of a regular expression and the replacement of its matches. They are applied in this
        order to each name in the file. None drops a tensor that the network does not use. Our own
        names must stay unchanged.
    only : str, optional
        Load only this submodule, such as "encoder".

    Raises
    ------
    ValueError
        The path is not a file, or tensors are missing, have another shape or are unknown.
    """
    path = Path(weights)
    if not path.is_file():
        raise ValueError(
            f"weights={str(weights)!r} is not a file; expected the path of a state dict (.pth or "
            f".safetensors)."
        )
    given = rename(read_state(path), renames)
    wanted = module.state_dict()
    if only is not None:
        given = {k: v for k, v in given.items() if k.startswith(f"{only}.")}
        wanted = {k: v for k, v in wanted.items() if k.startswith(f"{only}.")}
    _check_fit(given, wanted, f"weights={str(weights)!r}", type(module).__name__)
    module.load_state_dict(given, strict=False)


def load_whole_or_encoder(
    module: nn.Module,
    weights: str | os.PathLike[str] | None,
    encoder_weights: str | os.PathLike[str] | None,
    renames: Renames,
) -> None:
    """Load a network's ``encoder_weights`` and then its ``weights``, if they are given."""
    if encoder_weights is not None:
        load_published(module, encoder_weights, renames, only="encoder")
    if weights is not None:
        load_published(module, weights, renames)


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict without running code of the file.

    Raises
    ------
    ValueError
        The file is broken or is not a state dict.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"weights={str(path)!r} cannot be read as safetensors ({error}); expected a file "
                f"written by safetensors.torch.save_file."
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError):
        # The cause is left out, because it advises to run the code in the file.
        raise ValueError(
            f"weights={str(path)!r} cannot be read as a state dict; expected a file written by "
            f"torch.save(module.state_dict(), path): the weights only, not a whole module."
        ) from None
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping):
        raise ValueError(
            f"weights={str(path)!r} holds a {type(state).__name__}; expected a state dict, written "
            f"by torch.save(module.state_dict(), path)."
        )
    return state


def rename(state: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """Return a state dict under new names; see :func:`load_published`."""
    renamed = {}
    for key, tensor in state.items():
        name: str | None = key.removeprefix("module.")
        for pattern, place in renames:
            if name is not None and re.search(pattern, name):
                name = None if place is None else re.sub(pattern, place, name)
        if name is not None:
            renamed[name] = tensor
    return renamed


def _check_fit(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], weights: str, network: str
) -> None:
    # The oldest files lack the counters of batch normalization.
    needed = {k for k in wanted if not k.endswith("num_batches_tracked")}
    wrong = [k for k in wanted if k in given and given[k].shape != wanted[k].shape]
    if wrong:
        name = wrong[-1]
        raise ValueError(
            f"{weights} does not fit {network}: {len(wrong)} of {len(wanted)} tensors have another "
            f"shape, the last {name!r}: {tuple(given[name].shape)} in the file, "
            f"{tuple(wanted[name].shape)} in the network. Build the network with the classes, "
            f"channels and size that the weights were trained with."
        )
    missing, more = sorted(needed - set(given)), sorted(set(given) - set(wanted))
    if missing or more:
        raise ValueError(
            f"{weights} does not fit {network}: {len(missing)} tensors are missing"
            + (f" (such as {missing[0]!r})" if missing else "")
            + f", {len(more)} are unknown"
            + (f" (such as {more[0]!r})." if more else ".")
        )
