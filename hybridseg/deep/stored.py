"""Networks in model files: their descriptions as JSON and their weights as safetensors."""

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

from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.crf_layer import CRFLayer
from hybridseg.deep.crf_network import CRFNetwork
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

#: Modules without weights, which are saved like other objects.
LOSSES = (Loss, DeepSupervision, MultiTask, nn.modules.loss._Loss)
#: The settings of a trained net that are saved.
_SETTINGS = ("lr", "batch_size", "max_epochs")


def describe(network: Any) -> tuple[dict[str, Any], bytes]:
    """Describe a net, a module or a factory for a model file.

    Returns
    -------
    entry : dict
        The description, in values that JSON can store.
    weights : bytes
        The weights in the format of safetensors.
    """
    if not isinstance(network, skorch.NeuralNet | nn.Module):  # a factory
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
    entry: Mapping[str, Any],
    weights: bytes,
    owner: Any,
    network: Any,
    trusted: Sequence[str],
    *,
    crf: Any = False,
) -> Any:
    """Rebuild a net, a module or a factory from a model file.

    Parameters
    ----------
    entry : dict
        The description by :func:`describe`.
    weights : bytes
        The weights by :func:`describe`.
    owner : estimator
        The estimator that has the network as an attribute.
    network : str, module, callable or None
        For a net, the owner's parameter ``network``. For a module or a factory, the network that
        the user passed to ``load``.
    trusted : sequence of str
        The allow-list of names that may be imported.
    crf : bool, dict or CRFLayer
        For a net, the owner's parameter ``crf``.

    Returns
    -------
    skorch.NeuralNet, Module or callable

    Raises
    ------
    TypeError
        The file cannot hold the network, so the user has to pass it.
    ValueError
        The network does not fit the weights.
    """
    if entry["kind"] == "factory":
        if network is None and entry["name"] in trusted:
            package, _, name = entry["name"].rpartition(".")
            return getattr(importlib.import_module(package), name)
        _check_given(network, entry["name"], entry["kind"])
        return network
    state = _state(entry, weights)
    if entry["kind"] == "module":
        # The parameter crf and the network of a BoundaryRefiner are never the user's network.
        is_own = entry["name"] in map(full_name, (CRFLayer, BoundaryNetwork))
        if (network is not None and not is_own) or "made" not in entry:
            _check_given(network, entry["name"], entry["kind"])
            return _filled(_given(owner, network), entry, state)
        module = _of_ours(lambda: make(entry["made"]), entry, state, entry["name"])
        return _filled(module, entry, state)
    if not isinstance(owner, DeepSegmenter):
        raise ValueError(
            f"the file has a trained net in a {type(owner).__name__}; expected a DeepSegmenter."
        )
    if isinstance(network, nn.Module):
        module = _with_crf(owner, copy.deepcopy(network), crf)
        return _net(_filled(module, entry, state), entry)
    name = network if isinstance(network, str) else entry["name"].rpartition(".")[2]
    is_ours = isinstance(network, str)
    module = _of_ours(
        lambda: _with_crf(owner, _made(owner, network), crf), entry, state, name, is_ours=is_ours
    )
    return _net(_filled(module, entry, state), entry)


def _of_ours(
    make_one: Callable[[], nn.Module],
    entry: Mapping[str, Any],
    state: Mapping[str, Tensor],
    name: str,
    *,
    is_ours: bool = True,
) -> nn.Module:
    """Build a network of this package within the memory bound of its weights.

    A network that a factory of the user builds (``is_ours=False``) may need more memory.
    """
    try:
        return made_within(make_one, state)
    except Exception as error:
        if not is_ours and not isinstance(error, ValueError):
            return make_one()  # the factory may need tensors with values
        raise ValueError(
            f"the weights in the file are of a {entry['name']} and do not fit the network "
            f"{name}: {error}"
        ) from error


def _given(owner: Any, network: Any) -> nn.Module:
    """A copy of the module that the user gave, or the module that their factory returns."""
    if isinstance(network, nn.Module):
        return copy.deepcopy(network)
    if hasattr(owner, "network_options") and hasattr(owner, "classes_"):
        return _made(owner, network)
    n_channels = getattr(owner, "n_channels", getattr(owner, "n_channels_in_", 3))
    classes = getattr(owner, "classes", getattr(owner, "classes_", ()))
    module = called_as_it_can_be(network, n_channels, len(classes))
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"network made a {type(module).__name__}; expected a torch.nn.Module: pass a module, "
            f"or a class or function that returns one."
        )
    return module


#: For each kind of entry, the names of its values and their types.
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
    """Refuse a description that :func:`describe` cannot have made.

    Raises
    ------
    ValueError
        The kind is unknown, or a value is missing or has another type; the message names it.
    """
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if kind not in _ENTRIES:
        raise ValueError(f"the file has been tampered with: it has a network of kind {kind!r}.")
    for name, types in _ENTRIES[kind].items():
        if not isinstance(entry.get(name), types):
            raise ValueError(
                f"the file has been tampered with: hybridseg.save did not write its description "
                f"of a network, in which {name!r} is {entry.get(name)!r}."
            )
    for epoch in entry.get("history", ()):
        if not isinstance(epoch, dict) or not isinstance(epoch.get("batches", []), list):
            raise ValueError("the history of a network in the file has been tampered with.")


def _check_given(network: Any, name: str, kind: str) -> None:
    """Refuse a missing network, and one that is neither a module nor a factory."""
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
            f"network is a {type(network).__name__}; expected a torch.nn.Module like {name}: pass "
            f"a module, or a class or function that returns one."
        )


def _made(owner: Any, network: Any) -> nn.Module:
    """Build the network of a fitted DeepSegmenter with random weights, without any download."""
    options = without_weights(owner.network_options)
    with torch.random.fork_rng(devices=[]):
        return make_module(network, options, owner.n_channels_in_, len(owner.classes_))


def _with_crf(owner: DeepSegmenter, network: nn.Module, crf: Any) -> nn.Module:
    """The network of a net, followed by a CRF if the segmenter has one."""
    if crf is False:
        return network
    n_classes = len(owner.classes_)
    return CRFNetwork.around(network, crf, owner.n_channels_in_, n_classes, start=owner.crf_start)


def _state(entry: Mapping[str, Any], weights: bytes) -> dict[str, Tensor]:
    """Read weights in the format of safetensors."""
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # safetensors and torch raise errors of several types
        raise ValueError(f"the weights of a {entry['name']} in the file are broken.") from error


def _filled(module: nn.Module, entry: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Load weights into a module, and set its mode, dtype, memory format and frozen parameters."""
    own = module.state_dict()
    if entry["channels_last"]:
        module = module.to(memory_format=torch.channels_last)
    try:
        for name, value in state.items():
            if name in own and own[name].dtype != value.dtype:
                module = module.to(value.dtype)
        module.load_state_dict(state)
    except Exception as error:  # modules may raise any error as they load
        raise ValueError(
            f"the weights in the file are of a {entry['name']} and do not fit the network "
            f"{type(module).__name__}: {difference(module, state) or error}."
        ) from error
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in entry["frozen"])
    return module.train(entry["training"])


def _net(module: nn.Module, entry: Mapping[str, Any]) -> skorch.NeuralNet:
    """A skorch net with a trained module, and with the history of its training."""
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
    """The device if this computer has it; else "cpu", with a warning."""
    try:
        if torch.empty(0, device=device).is_meta:
            raise ValueError("it holds no values")
    except Exception:  # each type of device raises other errors
        warn_caller(
            f"the network was saved from the device {device!r}, which this computer does not have; "
            f"it is on the CPU now.",
        )
        return "cpu"
    return device


def _is_channels_last(module: nn.Module) -> bool:
    """Whether weights of convolutions are in channels-last memory format."""
    images: list[Tensor] = [p for p in module.parameters() if p.ndim == 4]
    return any(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in images
    )


def full_name(value: Any) -> str:
    """The full name under which a class or function can be imported."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', type(value).__module__)}.{name}"
