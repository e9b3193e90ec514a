"""Networks of this package, rebuilt from their descriptions in a model file.

A network is first built without memory for its parameters and compared with the weights in the
file. So a damaged or malicious description cannot allocate much more memory than these weights.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.crf_layer import CRFLayer
from hybridseg.deep.training.start import without_weights
from hybridseg.networks import NETWORKS
from hybridseg.networks.adapters import AdaptedNetwork
from hybridseg.networks.arguments import remembered_arguments

#: The most submodules and parameters that a network may have: the first number for each tensor in
#: its state, plus the second number.
_MAX_PARTS_PER_TENSOR, _MAX_FURTHER_PARTS = 16, 256
#: Attributes that come with pretrained weights instead of from an argument.
_STATISTICS = ("input_mean", "input_std")
_OURS: dict[str, type[nn.Module]] = {
    f"{made.__module__}.{made.__qualname__}": made for made in NETWORKS.values()
}
_OURS[f"{AdaptedNetwork.__module__}.{AdaptedNetwork.__qualname__}"] = AdaptedNetwork
_OURS[f"{CRFLayer.__module__}.{CRFLayer.__qualname__}"] = CRFLayer
_OURS[f"{BoundaryNetwork.__module__}.{BoundaryNetwork.__qualname__}"] = BoundaryNetwork


def describe_making(module: nn.Module) -> dict[str, Any] | None:
    """Describe how to build a network of this package, in values that JSON can store.

    Returns
    -------
    dict or None
        The name of the class, its arguments, and the input statistics of pretrained weights. None
        if the class is not of this package, or if the network was changed after it was built.
    """
    found = _described(module)
    if found is None:
        return None
    try:
        with torch.device("meta"):
            again = make(found)
    except Exception:  # a network that cannot be built without memory for its parameters
        return None
    return found if _alike(module, again) else None


def _described(module: nn.Module) -> dict[str, Any] | None:
    """The description of a network, not yet compared with the network; None if there is none."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    arguments = remembered_arguments(module) if _OURS.get(name) is type(module) else None
    if arguments is None:
        return None
    described: dict[str, Any] = {}
    for key, given in without_weights(arguments).items():
        value = given.tolist() if isinstance(given, np.ndarray | np.generic) else given
        if isinstance(value, nn.Module):
            inner = _described(value)
            if inner is None or vars(module)["_modules"].get(key) is not value:
                return None
            described[key] = inner
        elif not _is_plain(value):
            return None
        else:
            described[key] = value
    statistics = {
        path: {key: vars(part)[key] for key in _STATISTICS if key in vars(part)}
        for path, part in module.named_modules()
        if any(key in vars(part) for key in _STATISTICS) and not isinstance(part, AdaptedNetwork)
    }
    return {"name": name, "arguments": described, "statistics": statistics}


def _is_plain(value: Any) -> bool:
    """Whether JSON can store a value: a number, text, None, or a sequence of these."""
    if isinstance(value, tuple | list):
        return all(_is_plain(inner) for inner in value)
    return value is None or type(value) in (bool, int, float, str)


def make(described: Mapping[str, Any]) -> nn.Module:
    """Build a network with new weights from the description of :func:`describe_making`.

    Raises
    ------
    ValueError
        The description names a class of another package, or arguments that the class refuses.
    """
    try:
        arguments = {
            key: make(value) if isinstance(value, Mapping) else value
            for key, value in described["arguments"].items()
        }
        module: nn.Module = _OURS[described["name"]](**without_weights(arguments))
        for path, values in described["statistics"].items():
            part = module.get_submodule(path)
            for key in _STATISTICS:
                if key in values:
                    found = values[key]
                    setattr(part, key, None if found is None else tuple(map(float, found)))
    except Exception as error:  # the arguments come from a file and may be anything
        raise ValueError(f"its network cannot be built: {error!r}") from error
    return module


def _alike(module: nn.Module, again: nn.Module) -> bool:
    """Whether two networks have equal modules, so that equal weights give equal results."""
    mine, theirs = dict(module.named_modules()), dict(again.named_modules())
    return mine.keys() == theirs.keys() and all(
        type(part) is type(theirs[path]) and _facts(part) == _facts(theirs[path])
        for path, part in mine.items()
    )


def _facts(part: nn.Module) -> dict[str, Any]:
    """The attributes of a module without its submodules, and the shapes of its tensors."""
    facts: dict[str, Any] = {"hooks": [len(vars(part)[name]) for name in _HOOKS]}
    for name, value in vars(part).items():
        if name != "training" and (_is_plain(value) or isinstance(value, type)):
            facts[name] = list(value) if isinstance(value, tuple | list) else value
    for kind in ("_parameters", "_buffers"):
        facts[kind] = {
            name: None if value is None else tuple(value.shape)
            for name, value in vars(part)[kind].items()
        }
    return facts


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def made_within(make_one: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    """Build a network, but refuse it if it takes much more memory than its weights in a file.

    Parameters
    ----------
    make_one : callable
        Builds the network.
    state : mapping of str to Tensor
        The weights that will be loaded into the network.

    Raises
    ------
    ValueError
        The network has other parameters than ``state``, or needs more memory than 4 times its
        size plus 64 MiB.
    """
    with torch.device("meta"), _bounded(len(state)):
        empty = make_one()
    if complaint := difference(empty, state):
        raise ValueError(complaint)
    bound = sum(value.nbytes for value in state.values())
    if sum(value.nbytes for value in [*empty.parameters(), *empty.buffers()]) > 4 * bound + 2**26:
        raise ValueError("it takes more memory than the weights in the file")
    with torch.random.fork_rng(devices=[]):
        return make_one()


def difference(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Describe how the names and shapes of a network and of a state differ; "" if they agree."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    wanted = {name: tuple(value.shape) for name, value in state.items()}
    parts = []
    if missing := sorted(wanted.keys() - shapes.keys()):
        parts.append(f"it has no {', '.join(missing[:3])}")
    if unknown := sorted(shapes.keys() - wanted.keys()):
        parts.append(f"the file has no {', '.join(unknown[:3])}")
    for name in sorted(shapes.keys() & wanted.keys()):
        if shapes[name] != wanted[name] and len(parts) < 3:
            parts.append(f"{name} is {shapes[name]} in it and {wanted[name]} in the file")
    return "; ".join(parts)


@contextmanager
def _bounded(n_tensors: int) -> Iterator[None]:
    """Within a ``with`` block, refuse networks with far more parts than there are tensors.

    Raises
    ------
    ValueError
        A network gets more submodules and parameters than the bound.
    """
    left = _MAX_FURTHER_PARTS + _MAX_PARTS_PER_TENSOR * n_tensors
    here = threading.get_ident()

    def count(_module: nn.Module, _name: str, _part: Any) -> None:
        nonlocal left
        left -= threading.get_ident() == here
        if left < 0:
            raise ValueError(f"it has far more modules than the {n_tensors} tensors in the file")

    handles = [
        register_module_module_registration_hook(count),
        register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def called_as_it_can_be(factory: Callable[..., Any], n_channels: int, n_classes: int) -> Any:
    """Call a factory with ``in_channels`` and ``n_classes`` if it has these arguments."""
    numbers = {"in_channels": n_channels, "n_classes": n_classes}
    try:
        inspect.signature(factory).bind(**numbers)
    except (TypeError, ValueError):
        return factory()
    return factory(**numbers)
