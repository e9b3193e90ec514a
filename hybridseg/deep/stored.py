"""Networks as data: their descriptions, and their weights as safetensors."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

try:
    import safetensors
    import safetensors.torch
    import skorch
    import torch
except ImportError as error:
    raise ImportError(
        "models with networks need PyTorch, skorch and safetensors: pip install hybridseg[deep]"
    ) from error
from skorch.history import History
from torch import Tensor, nn

from hybridseg.deep.rebuilt import (
    called_as_it_can_be,
    describe_making,
    difference,
    made_within,
    make,
)
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.deep.training.start import make_module, without_weights
from hybridseg.losses import CrossEntropy, DeepSupervision, Loss, MultiTask
from hybridseg.validation import warn_caller

#: Modules that hold no weights, and are written as the plain objects that they are.
LOSSES = (Loss, DeepSupervision, MultiTask, nn.modules.loss._Loss)
#: The settings of a trained net that a file keeps.
_SETTINGS = ("lr", "batch_size", "max_epochs")


def describe(network: Any) -> tuple[dict[str, Any], bytes]:
    """Describe a net, a module or a factory in values that JSON knows; and give its weights."""
    if not isinstance(network, skorch.NeuralNet | nn.Module):  # what makes modules
        return {"kind": "factory", "name": full_name(network)}, safetensors.torch.save({})
    found: dict[str, Any] = {"kind": "module"}
    module = network
    if isinstance(network, skorch.NeuralNet):
        module = network.module_
        found = {
            "kind": "net",
            "device": str(network.device),
            "history": json.loads(json.dumps(network.history.to_list(), default=float)),
            **{name: getattr(network, name) for name in _SETTINGS},
        }
    elif (made := describe_making(module)) is not None:
        found["made"] = made
    found["name"] = full_name(type(module))
    found["training"] = module.training
    found["frozen"] = [name for name, p in module.named_parameters() if not p.requires_grad]
    found["channels_last"] = _is_channels_last(module)
    state = {
        name: value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        for name, value in module.state_dict().items()
    }
    return found, safetensors.torch.save(state)


def restore(
    entry: Mapping[str, Any], weights: bytes, owner: Any, network: Any, trusted: Sequence[str]
) -> Any:
    """Make a net, a module or a factory again.

    Parameters
    ----------
    entry, weights
        As :func:`describe` gave them.
    owner : estimator
        Whose attribute it is.
    network : str, module, callable or None
        The owner's parameter ``network`` for a net; for others the network that the user gave.
    trusted : sequence of str
        Names that may be imported.

    Raises
    ------
    TypeError
        The user has to give a network.
    ValueError
        It does not fit the weights.
    """
    if entry["kind"] == "factory":
        if network is None and entry["name"] in trusted:
            package, _, name = entry["name"].rpartition(".")
            return getattr(importlib.import_module(package), name)
        _check_given(network, entry["name"], entry["kind"])
        return network
    state = _state(entry, weights)
    if entry["kind"] == "module":
        if network is not None or "made" not in entry:
            _check_given(network, entry["name"], entry["kind"])
            return _filled(_given(owner, network), entry, state)
        module = _of_ours(lambda: make(entry["made"]), entry, state, entry["name"])
        return _filled(module, entry, state)
    if not isinstance(owner, DeepSegmenter):
        raise ValueError(f"a trained net is held by a {type(owner).__name__}, no DeepSegmenter.")
    if isinstance(network, nn.Module):
        return _net(_filled(copy.deepcopy(network), entry, state), entry)
    name = network if isinstance(network, str) else entry["name"].rpartition(".")[2]
    is_ours = isinstance(network, str)
    module = _of_ours(lambda: _made(owner, network), entry, state, name, is_ours=is_ours)
    return _net(_filled(module, entry, state), entry)


def _of_ours(
    make_one: Callable[[], nn.Module],
    entry: Mapping[str, Any],
    state: Mapping[str, Tensor],
    name: str,
    *,
    is_ours: bool = True,
) -> nn.Module:
    """A network that takes no more memory than its state, where it is one of this package's."""
    try:
        return made_within(make_one, state)
    except Exception as error:
        if not is_ours and not isinstance(error, ValueError):
            return make_one()  # what makes it may need memory to do so
        raise ValueError(
            f"the weights in the file are of a {entry['name']} and do not fit the network "
            f"{name}: {error}"
        ) from error


def _given(owner: Any, network: Any) -> nn.Module:
    """The module that a user gave, or the one that their factory makes."""
    if isinstance(network, nn.Module):
        return copy.deepcopy(network)
    if hasattr(owner, "network_options") and hasattr(owner, "classes_"):
        return _made(owner, network)
    n_channels = getattr(owner, "n_channels", getattr(owner, "n_channels_in_", 3))
    classes = getattr(owner, "classes", getattr(owner, "classes_", ()))
    module = called_as_it_can_be(network, n_channels, len(classes))
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"network made a {type(module).__name__}; expected a torch.nn.Module, or what makes it."
        )
    return module


#: The types of the values, by name, that an entry of each kind must have.
_ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "factory": {"name": (str,)},
    "module": {
        "name": (str,),
        "training": (bool,),
        "frozen": (list,),
        "channels_last": (bool,),
    },
}
_ENTRIES["net"] = _ENTRIES["module"] | {
    "device": (str,),
    "history": (list,),
    "lr": (int, float),
    "batch_size": (int,),
    "max_epochs": (int,),
}


def check_entry(entry: Any) -> None:
    """Refuse a description that is not as :func:`describe` makes it.

    Raises
    ------
    ValueError
        Names what is missing or of another type.
    """
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind not in _ENTRIES:
        raise ValueError(f"the file has been tampered with: it has a network of kind {kind!r}.")
    for name, types in _ENTRIES[kind].items():
        if not isinstance(entry.get(name), types):
            raise ValueError(
                f"the networks in the file are not as hybridseg.save writes them: it has been "
                f"tampered with ({name!r} of one is {entry.get(name)!r})."
            )
    for epoch in entry.get("history", ()):
        if not isinstance(epoch, dict) or not isinstance(epoch.get("batches", []), list):
            raise ValueError("the history of a network in the file has been tampered with.")


def _check_given(network: Any, name: str, kind: str) -> None:
    if network is None:
        how = "a module like it"
        if kind == "factory":
            how = f"the class or function (or, if it can be imported, trusted=[{name!r}])"
        raise TypeError(
            f"the model's network is a {name}, which a file cannot hold; pass it again: "
            f"load(path, network=...), {how}."
        )
    if not callable(network):
        raise TypeError(
            f"network is a {type(network).__name__}; expected a torch.nn.Module like {name}, or "
            f"what makes it."
        )


def _made(owner: Any, network: Any) -> nn.Module:
    """The network of a fitted DeepSegmenter with other weights; nothing is read or downloaded."""
    options = without_weights(owner.network_options)
    with torch.random.fork_rng(devices=[]):
        return make_module(network, options, owner.n_channels_in_, len(owner.classes_))


def _state(entry: Mapping[str, Any], weights: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # safetensors and torch have errors of their own
        raise ValueError(f"the weights of a {entry['name']} in the file are broken.") from error


def _filled(module: nn.Module, entry: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    own = module.state_dict()
    if entry["channels_last"]:
        module = module.to(memory_format=torch.channels_last)
    try:
        for name, value in state.items():
            if name in own and own[name].dtype != value.dtype:
                module = module.to(value.dtype)
        module.load_state_dict(state)
    except Exception as error:  # modules may load in ways of their own
        raise ValueError(
            f"the weights in the file are of a {entry['name']} and do not fit the network "
            f"{type(module).__name__}: {difference(module, state) or error}."
        ) from error
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in entry["frozen"])
    return module.train(entry["training"])


def _net(module: nn.Module, entry: Mapping[str, Any]) -> skorch.NeuralNet:
    settings = {name: entry[name] for name in _SETTINGS}
    net = skorch.NeuralNet(
        module,
        CrossEntropy,
        train_split=None,
        device=_present(entry["device"]),
        callbacks=None,
        verbose=0,
        **settings,
    )
    net.initialize()
    net.history = History(entry["history"])
    net.module_.train(entry["training"])
    return net


def _present(device: str) -> str:
    try:
        if torch.empty(0, device=device).is_meta:
            raise ValueError("it holds no values")
    except Exception:  # each kind of device has errors of its own
        warn_caller(
            f"the network was on the device {device!r}, which is not here; it is on the CPU now.",
        )
        return "cpu"
    return device


def _is_channels_last(module: nn.Module) -> bool:
    """Whether the weights of convolutions lie channels last, for which other code is faster."""
    images: list[Tensor] = [p for p in module.parameters() if p.ndim == 4]
    return any(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in images
    )


def full_name(value: Any) -> str:
    """The name under which a class or function may be imported."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', type(value).__module__)}.{name}"
