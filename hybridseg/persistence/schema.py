"""The estimators in a model file, looked through before anything is made of them.

skops writes an archive of its own: ``schema.json``, a tree of nodes that say how each object is
made, and the arrays. An object that is held twice is written twice, under one number, and is made
once, from the first; so what is written must be alike wherever a number comes again.
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
#: The version of skops' format from which on its nodes are as they are read here.
_OLDEST_PROTOCOL = 2
#: An array may be held many times, but then copies of it must not fill the memory.
_REFERRED_BYTES, _REFERRED_TIMES = 1 << 26, 64


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
        The content is broken, or would lead compiled code out of its arrays.
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
    except Exception as error:  # a schema can be broken in ways that nobody can name
        raise ValueError(
            f"its estimators are broken, cannot be read with the versions installed, or has been "
            f"tampered with ({_said(error)})"
        ) from error
    if unknown:
        raise TypeError(
            f"the file holds {', '.join(unknown)}, which hybridseg.load does not trust. If you "
            f"know the code of these, and who made the file, pass their names as trusted=."
        )
    return [*asked, *trusted]


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ValueError) else repr(error)


class _Schema:
    """The nodes of a schema, in the order in which they stand there."""

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        self.entries = entries
        self.nodes: list[dict[str, Any]] = []
        self._kinds: dict[Any, tuple[Any, ...]] = {}
        self._times: Counter[Any] = Counter()
        schema = json.loads(entries[_SCHEMA])
        protocol = schema["protocol"]
        if isinstance(protocol, bool) or not protocol >= _OLDEST_PROTOCOL:
            raise ValueError(f"the version {protocol!r} of its format is unknown")
        self._count(schema)

    def _count(self, part: Any) -> int:
        """The number of nodes in a part, which are kept; alike for equal numbers."""
        if isinstance(part, list):
            return sum(self._count(inner) for inner in part)
        if not isinstance(part, dict):
            return 0
        loader = part.get("__loader__")
        is_node = isinstance(loader, str)
        if is_node:
            self.nodes.append(part)
        n_nodes = is_node + sum(self._count(inner) for inner in part.values())
        if is_node:
            number = part.get("__id__")
            text = part["content"] if loader == "JsonNode" else None
            kind = (loader, full_name(part), n_nodes, text, part.get("file"))
            self._times[number] += 1
            if self._kinds.setdefault(number, kind) != kind and number is not None:
                raise ValueError(f"two objects have the number {number!r}")
        return n_nodes

    def check_entries(self) -> None:
        """Refuse arrays whose values are not there, and entries that no node names."""
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
            raise ValueError(f"nothing names the entries {sorted(unknown)}")
        n_own = sum(map(len, self.entries.values()))
        if n_bytes > _REFERRED_BYTES + _REFERRED_TIMES * n_own:
            raise ValueError("its arrays are held more often than they can be meant to be")

    def _check_array(self, node: Mapping[str, Any], name: str) -> None:
        shape, _ = read_array_header(self.entries[name], name)
        if name != f"{node['__id__']}.npy" or node["type"] != "numpy":
            raise ValueError(f"the entry {name!r} belongs to another object")
        if node["__class__"] == "ndarray":
            return
        kind = getattr(np, node["__class__"])
        if shape or not issubclass(kind, np.number | np.bool_ | np.character):
            raise ValueError(f"the entry {name!r} is no {full_name(node)}")

    def check_trees(self) -> None:
        """Refuse decision trees that scikit-learn would follow out of its arrays.

        It copies them into memory of its own without looking, so this must come first.
        """
        for node in self.nodes:
            if node["__loader__"] == "TreeNode":
                try:
                    self._check_tree(node)
                except Exception as error:  # a value of another kind than expected
                    raise ValueError(f"it holds a broken decision tree: {_said(error)}") from error

    def _check_tree(self, node: Mapping[str, Any]) -> None:
        arguments, state = node["__reduce__"]["args"], node["content"]
        _require(
            arguments["__loader__"] == "TupleNode" and state["__loader__"] == "DictNode",
            "it is written in another way",
        )
        for part in (arguments, state):  # else another object would be made in its place
            _require(self._times[part["__id__"]] == 1, "its parts are another's")
        n_features, n_classes, n_outputs = (self._value(part) for part in arguments["content"])
        values = {name: self._value(part) for name, part in state["content"].items()}
        _require(_is_count(n_features) and _is_count(n_outputs), "its counts are no numbers")
        _require(
            n_classes.shape == (n_outputs,) and n_classes.dtype.kind in "iu",
            f"it counts the classes of {n_outputs} outputs in an array {n_classes.shape}",
        )
        _require(((n_classes >= 1) & (n_classes < 1 << 31)).all(), "it has no classes")
        nodes, found = values["nodes"], values["values"]
        _require(nodes.ndim == 1 and len(nodes) > 0, f"its nodes are an array {nodes.shape}")
        shape = (len(nodes), n_outputs, int(n_classes.max()))
        _require(found.shape == shape, f"its values are {found.shape}; expected {shape}")
        _require(found.dtype == np.float64, f"its values are of {found.dtype}")
        _require(np.isfinite(found).all(), "its values are not finite")
        _require(values["node_count"] == len(nodes), "it counts its nodes wrongly")
        leaf = nodes["left_child"] == -1
        depth = check_nodes(
            nodes["left_child"], nodes["right_child"], nodes["feature"], leaf, n_features
        )
        _require(not np.isnan(nodes["threshold"]).any(), "its thresholds are no numbers")
        _require(values["max_depth"] == depth, f"its depth is {depth}, not as it says")

    def _value(self, node: Mapping[str, Any]) -> Any:
        """What a node of a number or of an array stands for."""
        if node["__loader__"] == "JsonNode":
            return json.loads(node["content"])
        _require(full_name(node) == "numpy.ndarray" and "file" in node, "a part is no array")
        return read_array(self.entries[node["file"]], node["file"])


def check_nodes(left: Any, right: Any, feature: Any, leaf: Any, n_features: int) -> int:
    """Refuse nodes that make no tree, or ask for a feature that there is not.

    Parameters
    ----------
    left, right : ndarray of int, (N,)
        Each node's children.
    feature : ndarray of int, (N,)
        Which one each node asks for.
    leaf : ndarray of bool, (N,)
        Nodes that have no children.
    n_features : int

    Returns
    -------
    int
        The depth of the deepest node.

    Raises
    ------
    ValueError
        Nodes are no tree whose children come after their parents.
    """
    _require(len(leaf) > 0, "it has no nodes")
    rows = np.arange(len(leaf))[~leaf]
    children = np.stack([left[~leaf], right[~leaf]]).astype(np.int64)
    inside = (children > rows) & (children < len(leaf))
    _require(inside.all(), "its nodes lead astray")
    _require((np.sort(children.ravel()) == np.arange(1, len(leaf))).all(), "nodes have two parents")
    features = feature[~leaf].astype(np.int64)
    _require(((features >= 0) & (features < n_features)).all(), "it asks for unknown features")
    depth, level = 0, np.zeros(1, np.int64)
    while len(level := level[~leaf[level]]):
        level = np.concatenate([left[level], right[level]]).astype(np.int64)
        depth += 1
    return depth


def _check_objects(node: Mapping[str, Any]) -> None:
    """Refuse arrays of objects that would be made of lists of another shape."""
    _require(node["type"] == "json", "an array is written in another way")
    shape = [json.loads(part["content"]) for part in node["shape"]["content"]]
    level: list[Any] = node["content"]
    for depth, size in enumerate(shape):
        if depth:
            even = all(
                part["__loader__"] == "ListNode" and len(part["content"]) == size for part in level
            )
            _require(even, f"an array of objects has not the shape {shape}")
            level = [inner for part in level for inner in part["content"]]
        n_items = int(np.prod(shape[: depth + 1]))
        _require(_is_count(size) or size == 0, f"an array of objects has the shape {shape}")
        _require(len(level) == n_items, f"an array of objects has not the shape {shape}")
    nested = ("ListNode", "NdArrayNode", "TupleNode")
    deeper = len(shape) != 1 and any(part["__loader__"] in nested for part in level)
    _require(shape and not deeper, f"an array of objects has the shape {shape}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 31


def _require(good: Any, complaint: str) -> None:
    if not good:
        raise ValueError(complaint)
