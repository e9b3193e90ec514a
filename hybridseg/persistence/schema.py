"""Checks of the estimators in a model file, before any object is made.

skops writes an archive of its own: the arrays, and ``schema.json``, a tree of nodes. Each node says
how an object is made. An object that is held twice has two nodes with the same number, but skops
makes it once, from the first node. So all nodes with the same number must be equal.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridseg.persistence.archives import read_archive, read_array, read_array_header
from hybridseg.persistence.trusted_types import full_name, is_ours, refused

_SCHEMA = "schema.json"
#: The oldest version of the skops format whose nodes have the form that is checked here.
_MIN_PROTOCOL = 2
#: Many nodes may refer to one array, and each may make a copy. The arrays of all nodes together may
#: take ``_MAX_REPEATED_BYTES`` and ``_MAX_REPEATS`` times the size of the entries.
_MAX_REPEATED_BYTES, _MAX_REPEATS = 1 << 26, 64


def check_contents(content: bytes, trusted: Sequence[str]) -> list[str]:
    """Check the content of a skops file before any object is made.

    Parameters
    ----------
    content : bytes
        The whole skops file.
    trusted : sequence of str
        Full names that the user adds to the allow-list.

    Returns
    -------
    list of str
        The names to pass to skops as trusted.

    Raises
    ------
    TypeError
        A type or function is not on the allow-list.
    ValueError
        The content is broken, or would make compiled code read outside its arrays.
    """
    try:
        schema = _Schema(read_archive(content))
        unknown = refused(schema.nodes, trusted)
        if not unknown:
            schema.check_entries()
            schema.check_trees()
            skops_io = importlib.import_module("skops.io")
            asked = skops_io.get_untrusted_types(data=content)
            unknown = [name for name in asked if name not in trusted and not is_ours(name)]
    except Exception as error:  # a broken schema raises errors of every kind
        raise ValueError(
            f"its estimators are broken, or the file cannot be read with the versions installed or "
            f"has been tampered with ({_text_of(error)})"
        ) from error
    if unknown:
        raise TypeError(
            f"the file holds {', '.join(unknown)}, which hybridseg.load does not trust. If you "
            f"know the code behind these names and who made the file, pass the names as trusted=."
        )
    return [*asked, *trusted]


def _text_of(error: BaseException) -> str:
    """Return the message of a ValueError, and the type as well of other errors."""
    return str(error) if isinstance(error, ValueError) else repr(error)


class _Schema:
    """The nodes of a schema, in the order of the file, and the entries of its archive."""

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        self.entries = entries
        self.nodes: list[dict[str, Any]] = []
        # The properties that all nodes with a number share, and the number of these nodes.
        self._kinds: dict[Any, tuple[Any, ...]] = {}
        self._times: Counter[Any] = Counter()
        schema = json.loads(entries[_SCHEMA])
        protocol = schema["protocol"]
        if isinstance(protocol, bool) or not protocol >= _MIN_PROTOCOL:
            raise ValueError(f"the version {protocol!r} of its format is unknown")
        self._collect(schema)

    def _collect(self, part: Any) -> int:
        """Collect the nodes in a part and return their number; nodes with one id must be equal."""
        if isinstance(part, list):
            return sum(self._collect(inner) for inner in part)
        if not isinstance(part, dict):
            return 0
        loader = part.get("__loader__")
        is_node = isinstance(loader, str)
        if is_node:
            self.nodes.append(part)
        n_nodes = is_node + sum(self._collect(inner) for inner in part.values())
        if is_node:
            number = part.get("__id__")
            text = part["content"] if loader == "JsonNode" else None
            kind = (loader, full_name(part), n_nodes, text, part.get("file"))
            self._times[number] += 1
            if self._kinds.setdefault(number, kind) != kind and number is not None:
                raise ValueError(f"two objects have the number {number!r}")
        return n_nodes

    def check_entries(self) -> None:
        """Refuse arrays without all their values, and entries that no node names."""
        read, n_bytes = {_SCHEMA}, 0
        for node in self.nodes:
            if "file" in node:
                name = node["file"]
                n_bytes += len(self.entries[name])
                if node["__loader__"] == "NdArrayNode":
                    self._check_array(node, name)
                read.add(name)
            elif node["__loader__"] == "NdArrayNode":
                _check_objects(node)
        if unknown := set(self.entries) - read:
            raise ValueError(f"no node names the entries {sorted(unknown)}")
        n_own = sum(map(len, self.entries.values()))
        if n_bytes > _MAX_REPEATED_BYTES + _MAX_REPEATS * n_own:
            raise ValueError("its nodes refer too often to the same arrays")

    def _check_array(self, node: Mapping[str, Any], name: str) -> None:
        shape, _ = read_array_header(self.entries[name], name)
        if name != f"{node['__id__']}.npy" or node["type"] != "numpy":
            raise ValueError(f"the entry {name!r} belongs to another object")
        if node["__class__"] == "ndarray":
            return
        kind = getattr(np, node["__class__"])
        if shape or not issubclass(kind, np.number | np.bool_ | np.character):
            raise ValueError(f"the entry {name!r} is not a {full_name(node)}")

    def check_trees(self) -> None:
        """Refuse decision trees that would make scikit-learn read outside its arrays.

        scikit-learn copies the nodes of a tree without checks when it makes the tree, so this check
        comes before.
        """
        for node in self.nodes:
            if node["__loader__"] == "TreeNode":
                try:
                    self._check_tree(node)
                except Exception as error:  # values of other types raise errors of every kind
                    raise ValueError(
                        f"it holds a broken decision tree: {_text_of(error)}"
                    ) from error

    def _check_tree(self, node: Mapping[str, Any]) -> None:
        arguments, state = node["__reduce__"]["args"], node["content"]
        _require(
            arguments["__loader__"] == "TupleNode" and state["__loader__"] == "DictNode",
            "its nodes are not of the expected types",
        )
        for part in (arguments, state):  # else skops would take another object in its place
            _require(self._times[part["__id__"]] == 1, "its parts belong to another object")
        n_features, n_classes, n_outputs = (self._value(part) for part in arguments["content"])
        values = {name: self._value(part) for name, part in state["content"].items()}
        _require(
            _is_count(n_features) and _is_count(n_outputs), "its counts are not positive integers"
        )
        _require(
            n_classes.shape == (n_outputs,) and n_classes.dtype.kind in "iu",
            f"its class counts are not {n_outputs} integers",
        )
        _require(
            ((n_classes >= 1) & (n_classes < 1 << 31)).all(), "its class counts are out of range"
        )
        nodes, found = values["nodes"], values["values"]
        _require(
            nodes.ndim == 1 and len(nodes) > 0,
            f"its nodes have the shape {nodes.shape}; expected one axis",
        )
        shape = (len(nodes), n_outputs, int(n_classes.max()))
        _require(found.shape == shape, f"its values have the shape {found.shape}; expected {shape}")
        _require(
            found.dtype == np.float64, f"its values have the dtype {found.dtype}; expected float64"
        )
        _require(np.isfinite(found).all(), "its values are not finite")
        _require(values["node_count"] == len(nodes), "its node count is wrong")
        leaf = nodes["left_child"] == -1
        depth = check_nodes(
            nodes["left_child"], nodes["right_child"], nodes["feature"], leaf, n_features
        )
        _require(not np.isnan(nodes["threshold"]).any(), "a threshold is NaN")
        _require(values["max_depth"] == depth, f"its depth is {depth}, but it states another")

    def _value(self, node: Mapping[str, Any]) -> Any:
        """Return the value of a node that holds a number or an array."""
        if node["__loader__"] == "JsonNode":
            return json.loads(node["content"])
        _require(full_name(node) == "numpy.ndarray" and "file" in node, "a part is not an array")
        return read_array(self.entries[node["file"]], node["file"])


def check_nodes(left: Any, right: Any, feature: Any, leaf: Any, n_features: int) -> int:
    """Check that nodes make a tree and use features that exist.

    Parameters
    ----------
    left, right : ndarray of int, (N,)
        The left and right child of each node.
    feature : ndarray of int, (N,)
        The feature that each node compares with its threshold.
    leaf : ndarray of bool, (N,)
        True for nodes without children.
    n_features : int
        The number of features.

    Returns
    -------
    int
        The depth of the deepest node.

    Raises
    ------
    ValueError
        A child does not come after its parent, a node does not have exactly one parent, or a
        feature does not exist.
    """
    _require(len(leaf) > 0, "it has no nodes")
    rows = np.arange(len(leaf))[~leaf]
    children = np.stack([left[~leaf], right[~leaf]]).astype(np.int64)
    inside = (children > rows) & (children < len(leaf))
    _require(inside.all(), "a child is out of range or comes before its parent")
    _require(
        (np.sort(children.ravel()) == np.arange(1, len(leaf))).all(),
        "a node does not have one parent",
    )
    features = feature[~leaf].astype(np.int64)
    _require(
        ((features >= 0) & (features < n_features)).all(),
        "a node uses a feature that does not exist",
    )
    depth, level = 0, np.zeros(1, np.int64)
    while len(level := level[~leaf[level]]):
        level = np.concatenate([left[level], right[level]]).astype(np.int64)
        depth += 1
    return depth


def _check_objects(node: Mapping[str, Any]) -> None:
    """Refuse arrays of objects whose nested lists do not have the stated shape."""
    _require(node["type"] == "json", "an array is not of the expected type")
    shape = [json.loads(part["content"]) for part in node["shape"]["content"]]
    level: list[Any] = node["content"]
    for depth, size in enumerate(shape):
        if depth:
            even = all(
                part["__loader__"] == "ListNode" and len(part["content"]) == size for part in level
            )
            _require(even, f"an array of objects does not have the shape {shape} that it states")
            level = [inner for part in level for inner in part["content"]]
        n_items = int(np.prod(shape[: depth + 1]))
        _require(_is_count(size) or size == 0, f"an array of objects states the shape {shape}")
        _require(
            len(level) == n_items,
            f"an array of objects does not have the shape {shape} that it states",
        )
    nested = ("ListNode", "NdArrayNode", "TupleNode")
    deeper = len(shape) != 1 and any(part["__loader__"] in nested for part in level)
    _require(shape and not deeper, f"an array of objects states the shape {shape}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 31


def _require(good: Any, complaint: str) -> None:
    if not good:
        raise ValueError(complaint)
