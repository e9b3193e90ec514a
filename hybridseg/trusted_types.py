"""What a file of :mod:`hybridseg.persistence` may make: types by name, trees by their content.

skops makes nothing of a type that is not on its list. Here that list is drawn up: classes only, of
named modules, never functions, since what can be called might be called with what a file says.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

_SYSTEMS = ("Posix", "Windows")
#: Types that are made by a call, with what a file says.
_CALLED = {
    "builtins.range",
    *(f"{module}.{name}Path" for module in ("pathlib", "pathlib._local") for name in _SYSTEMS),
}
#: Node types of skops that hold plain values, and what they may make.
_VALUES = {
    "BytesNode": {"builtins.bytes"},
    "ConstructorFromReduceNode": _CALLED,
    "DTypeNode": {"numpy.dtype"},
    "DictNode": {"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"},
    "ListNode": {"builtins.list", "hybridseg.sequences.ImageList"},
    "MaskedArrayNode": {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "SetNode": {"builtins.set"},
    "SliceNode": {"builtins.slice"},
    "TupleNode": {"builtins.tuple"},
}
#: Node types that hold JSON, or refer to another node.
_CONSTANTS = {"CachedNode", "JsonNode"}
#: Node types that make objects of types that skops asks about.
_OBJECTS = {
    *("FunctionNode", "LossNode", "NdArrayNode", "ObjectNode", "PartialNode"),
    *("SparseMatrixNode", "TreeNode", "TypeNode"),
}
#: Types that are none of an estimator's public ones.
_KNOWN = _CALLED | {
    "builtins.print",
    "functools.partial",
    "numpy.dtype",
    "numpy.ma.core.MaskedArray",
    "numpy.random._generator.Generator",
    "numpy.random.mtrand.RandomState",
    "hybridseg.sequences.ImageList",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "skorch.utils.noop",
    "torch.nn.modules.container.ModuleList",
}


def check_contents(content: bytes, trusted: Sequence[str]) -> list[str]:
    """Look through a skops file, of which nothing is made yet.

    Parameters
    ----------
    content : bytes
    trusted : sequence of str
        Full names that the user trusts.

    Returns
    -------
    list of str
        The names that skops may trust.

    Raises
    ------
    TypeError
        A name is not trusted.
    ValueError
        The content is broken.
    """
    skops_io = importlib.import_module("skops.io")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            schema = json.loads(archive.read("schema.json"))
            for name in archive.namelist():
                archive.read(name)  # checks its sum
        refused = sorted(_refused(schema, trusted))
        asked = [] if refused else skops_io.get_untrusted_types(data=content)
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"the file's estimators are broken, or no such ({error}).") from error
    refused += [name for name in asked if name not in trusted and not _is_ours(name)]
    if refused:
        raise TypeError(
            f"the file holds {', '.join(refused)}, which hybridseg.load does not trust. If you "
            f"know the code of these, and who made the file, pass their names as trusted=."
        )
    return [*asked, *trusted]


def _refused(schema: Any, trusted: Sequence[str]) -> Iterator[str]:
    """Names in a skops schema that are made in ways that no model needs."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
            loader = part.get("__loader__")
            if isinstance(loader, str) and _full_name(part) not in trusted:
                known = loader in _OBJECTS or _full_name(part) in _VALUES.get(loader, ())
                if not known and loader not in _CONSTANTS:
                    yield f"{_full_name(part)} ({loader})"
                if loader == "DictNode":
                    yield from _keys_refused(part["key_types"]["content"])


def _keys_refused(types: list[dict[str, Any]]) -> Iterator[str]:
    """Types of a dict's keys that are no plain ones: skops calls them."""
    for part in types:
        if part["__loader__"] != "TypeNode" or part["__module__"] not in ("builtins", "numpy"):
            yield f"{_full_name(part)} (as the type of a key)"


def _full_name(part: dict[str, Any]) -> str:
    return f"{part['__module__']}.{part['__class__']}"


def _is_ours(name: str) -> bool:
    """Whether a name that skops does not know is a class that models may hold."""
    if name in _KNOWN:
        return True
    for public in ("sklearn.model_selection", "torch.optim", "skorch.callbacks"):
        if name.startswith(f"{public}."):
            found = vars(importlib.import_module(public)).values()
            return name in {_name_of(value) for value in found if inspect.isclass(value)}
    return name.startswith(("hybridseg.", "torch.nn.modules.loss.")) and _is_class(name)


def _name_of(value: type) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _is_class(name: str) -> bool:
    """Whether a name is that of a class where it is defined; imports that module."""
    module, _, attribute = name.rpartition(".")
    if any(part.startswith("_") for part in name.split(".")):
        return False  # hybridseg.__main__ would run
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and _name_of(found) == name


def check_trees(parts: Iterable[tuple[Any, Any]]) -> None:
    """Refuse decision trees that would lead scikit-learn out of its arrays.

    Parameters
    ----------
    parts : iterable of (owner, value)
        Everything in a model.

    Raises
    ------
    ValueError
        A node's children do not come after it, or it asks for a feature that there is not.
    """
    for owner, value in parts:
        kind = f"{type(value).__module__}.{type(value).__name__}"
        n_features = getattr(owner, "n_features_in_", None)
        if kind == "sklearn.tree._tree.Tree":
            _require(value.n_features == n_features)
            left, right = value.children_left, value.children_right
            _check_nodes(left, right, value.feature, left == -1, value.n_features)
        elif kind.endswith("_hist_gradient_boosting.predictor.TreePredictor"):
            nodes = value.nodes
            leaf = nodes["is_leaf"].astype(bool)
            _check_nodes(nodes["left"], nodes["right"], nodes["feature_idx"], leaf, n_features or 0)
            n_sets = min(len(value.binned_left_cat_bitsets), len(value.raw_left_cat_bitsets))
            by_category = nodes["is_categorical"].astype(bool) & ~leaf
            _require((nodes["bitset_idx"][by_category] < n_sets).all())
        elif not hasattr(value, "estimators_features_"):
            for tree in np.ravel(np.array(getattr(value, "estimators_", ()), dtype=object)):
                _require(not hasattr(tree, "tree_") or value.n_features_in_ == tree.n_features_in_)


def _check_nodes(left: Any, right: Any, feature: Any, leaf: Any, n_features: int) -> None:
    rows = np.arange(len(left))[~leaf]
    _require(len(left) > 0)
    for child in (left, right):
        found = child[~leaf].astype(np.int64)
        _require(((found > rows) & (found < len(left))).all())
    features = feature[~leaf].astype(np.int64)
    _require(((features >= 0) & (features < n_features)).all())


def _require(good: Any) -> None:
    if not good:
        raise ValueError("the file holds a broken decision tree; it was tampered with.")
