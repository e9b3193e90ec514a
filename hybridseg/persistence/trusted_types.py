"""The allow-list: the types and functions that a model file may name.

skops makes no object whose type is not on an allow-list. This module defines that list: classes of
named modules, and the few functions that models hold. Other functions are not on the list, because
a file could have them called with any arguments. The content of the objects is checked in
:mod:`~hybridseg.persistence.schema` before they are made, and in
:mod:`~hybridseg.persistence.fitted_state` afterwards.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hybridseg.base import SKLEARN_TYPES

_SYSTEMS = ("Posix", "Windows")
#: Types that are called with arguments from the file.
_CALLED = {
    "builtins.range",
    *(f"{module}.{name}Path" for module in ("pathlib", "pathlib._local") for name in _SYSTEMS),
}
#: Node types of skops that hold plain values, and the types that each may make.
_VALUES = {
    "BytesNode": {"builtins.bytes"},
    "ConstructorFromReduceNode": _CALLED,
    "DTypeNode": {"numpy.dtype"},
    "DictNode": {"builtins.dict", "collections.OrderedDict", SKLEARN_TYPES["bunch"]},
    "ListNode": {"builtins.list", "hybridseg.scene.sequences.ImageList"},
    "MaskedArrayNode": {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "SetNode": {"builtins.set"},
    "SliceNode": {"builtins.slice"},
    "TupleNode": {"builtins.tuple"},
}
#: Node types that make objects of named types, and the prefixes of the names that each may make.
_OBJECTS = {
    "FunctionNode": ("",),
    "LossNode": (SKLEARN_TYPES["losses"], SKLEARN_TYPES["sgd losses"]),
    "NdArrayNode": ("numpy.",),
    "ObjectNode": ("hybridseg.", "sklearn.", "skorch.", "torch."),
    "PartialNode": ("functools.partial",),
    "TreeNode": (SKLEARN_TYPES["tree"],),
    "TypeNode": ("",),
}
#: Types that an ObjectNode may not make, because it would leave them incomplete.
_NEVER_OBJECTS = {SKLEARN_TYPES["tree"]}
_SCORES = ("chi2", "f_classif", "f_regression", "r_regression")
_OPTIMIZERS = ("AdamOptimizer", "SGDOptimizer")
_DISTANCES = ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
#: Further types and functions on the allow-list, which estimators and their parameters hold.
_KNOWN = _CALLED | {
    "builtins.print",
    SKLEARN_TYPES["calibrated"],
    SKLEARN_TYPES["sigmoid"],
    SKLEARN_TYPES["temperature"],
    *(SKLEARN_TYPES["scores"] + name for name in _SCORES),
    SKLEARN_TYPES["binary Gaussian process"],
    *(f"{SKLEARN_TYPES['distances']}{name}Distance64" for name in _DISTANCES),
    SKLEARN_TYPES["ball tree"],
    SKLEARN_TYPES["k-d tree"],
    *(SKLEARN_TYPES["network optimizers"] + name for name in _OPTIMIZERS),
    "sklearn.utils.validation.check_array",
    "functools.partial",
    "numpy.dtype",
    "numpy.ma.core.MaskedArray",
    "numpy.random._generator.Generator",
    "numpy.random.mtrand.RandomState",
    "hybridseg.scene.sequences.ImageList",
    SKLEARN_TYPES["histogram predictor"],
    SKLEARN_TYPES["passthrough scorer"],
    SKLEARN_TYPES["tree"],
    SKLEARN_TYPES["bunch"],
    "skorch.utils.noop",
    "torch.nn.modules.container.ModuleList",
}
#: Modules whose public classes are on the allow-list.
_PUBLIC = (
    *("sklearn.gaussian_process.kernels", "sklearn.model_selection"),
    *("skorch.callbacks", "torch.optim"),
)


def refused(nodes: Sequence[Mapping[str, Any]], trusted: Sequence[str]) -> list[str]:
    """Return the names in a skops schema that nodes of their type may not make.

    Parameters
    ----------
    nodes : sequence of mappings
        The nodes of the schema; each says how an object is made.
    trusted : sequence of str
        Full names that the user adds to the allow-list.

    Returns
    -------
    list of str
        The names, sorted, without duplicates.
    """
    return sorted({name for node in nodes for name in _refused(node, trusted)})


def _refused(node: Mapping[str, Any], trusted: Sequence[str]) -> Iterator[str]:
    loader, name = node["__loader__"], full_name(node)
    if loader == "DictNode":
        yield from _keys_refused(node["key_types"]["content"])
    if name in trusted or loader == "JsonNode":
        return
    incomplete = loader == "ObjectNode" and name in _NEVER_OBJECTS
    known = name in _VALUES.get(loader, ()) or name.startswith(_OBJECTS.get(loader, ()))
    if incomplete or not known:
        yield f"{name} ({loader})"


def _keys_refused(types: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the types of dict keys outside builtins and NumPy; skops calls the types of keys."""
    for part in types:
        if part["__loader__"] != "TypeNode" or part["__module__"] not in ("builtins", "numpy"):
            yield f"{full_name(part)} (as the type of a key)"


def full_name(part: Mapping[str, Any]) -> str:
    """Return the full name of the type or function that a node names."""
    return f"{part['__module__']}.{part['__class__']}"


def is_ours(name: str) -> bool:
    """Return whether a name that skops does not trust by itself is on the allow-list."""
    if name in _KNOWN:
        return True
    for public in _PUBLIC:
        if name.startswith(f"{public}."):
            found = vars(importlib.import_module(public)).values()
            return name in {_name_of(value) for value in found if inspect.isclass(value)}
    return name.startswith(("hybridseg.", "torch.nn.modules.loss.")) and _is_class(name)


def _name_of(value: type) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _is_class(name: str) -> bool:
    """Return whether a name is a class in the module that defines it; imports the module."""
    module, _, attribute = name.rpartition(".")
    if any(part.startswith("_") for part in name.split(".")):
        return False  # an import of hybridseg.__main__ would run it
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and _name_of(found) == name
