"""A schema is checked before its objects are created: trees, lists, numbers of objects."""

import json

import numpy as np
import pytest

from hybridseg import load
from tests.persistence.archives_made import (
    with_arrays,
    with_schema,
)


def nodes_of(change):
    """A function that applies ``change`` to arrays of tree nodes, and to no others."""

    def changed(array):
        names = array.dtype.names
        return change(array.copy()) if names and "left_child" in names else None

    return changed


def put(name, where, value):
    def change(nodes):
        nodes[name][where] = value
        return nodes

    return nodes_of(change)


BROKEN_TREES = {
    "no axis": nodes_of(lambda nodes: nodes[0]),
    "two axes": nodes_of(lambda nodes: nodes[None]),
    "empty": nodes_of(lambda nodes: nodes[:0]),
    "short": nodes_of(lambda nodes: nodes[:-1]),
    "long": nodes_of(lambda nodes: np.concatenate([nodes, nodes])),
    "plain": nodes_of(lambda nodes: nodes["left_child"].copy()),
    "far child": put("left_child", 0, 10**6),
    "negative child": put("right_child", 0, -7),
    "circle": put("left_child", 0, 0),
    "two parents": put("left_child", 0, 2),
    "feature beyond": put("feature", 0, 10**6),
    "negative feature": put("feature", 0, -2),
    "no threshold": put("threshold", 0, np.nan),
    "values of no axis": lambda array: np.float64(0) if array.ndim == 3 else None,
    "values too few": lambda array: array[1:] if array.ndim == 3 else None,
    "values too narrow": lambda array: array[..., 1:].copy() if array.ndim == 3 else None,
    "values of no number": lambda array: array * np.nan if array.ndim == 3 else None,
    "values of no shares": lambda array: array + 1 if array.ndim == 3 else None,
    "values of another kind": lambda array: array.astype("f4") if array.ndim == 3 else None,
    "everything of no axis": lambda array: np.zeros((), array.dtype),
    "everything empty": lambda array: np.zeros(0, array.dtype),
}


@pytest.mark.parametrize("name", BROKEN_TREES)
def test_broken_trees_are_refused(saved, name):
    with_arrays(saved, BROKEN_TREES[name])
    with pytest.raises(ValueError, match=r"model\.hybridseg.*(broken|tampered with)"):
        load(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_depth", value) for value in (0, 10**9, -1, "x", None)),
        *(("node_count", value) for value in (1, 10**9, -1, "x", None)),
    ],
)
def test_trees_that_say_other_than_they_are(saved, name, value):
    def change(schema):
        for tree in trees_in(schema):
            tree["content"]["content"][name]["content"] = json.dumps(value)
            tree["content"]["content"][name].pop("__id__")

    with_schema(saved, change)
    with pytest.raises(ValueError, match="holds a broken decision tree"):
        load(saved)


def trees_in(part):
    if isinstance(part, dict):
        if part.get("__loader__") == "TreeNode":
            yield part
        for inner in part.values():
            yield from trees_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from trees_in(inner)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [0, -1, 2, 10**6, 10**30, "x", None])
def test_trees_of_other_counts(saved, place, value):
    def change(schema):
        for tree in trees_in(schema):
            part = tree["__reduce__"]["args"]["content"][place]
            part["content"] = json.dumps(value)
            part.pop("__id__")

    with_schema(saved, change)
    with pytest.raises(ValueError, match="decision tree"):
        load(saved)


def test_parts_of_a_tree_are_its_own(saved):
    """skops creates one object for each number, no matter how often the number occurs."""

    def change(schema):
        first, second, *_ = trees_in(schema)
        second["content"]["__id__"] = first["content"]["__id__"]
        second["__reduce__"]["args"]["__id__"] = first["__reduce__"]["args"]["__id__"]

    with_schema(saved, change)
    with pytest.raises(ValueError, match="decision tree: its parts belong to another object"):
        load(saved)


def test_lists_within_lists_do_not_multiply(saved):
    """Each list holds the previous one ten times by its number, which would give 10^30 values."""

    def change(schema):
        part = {"__loader__": "JsonNode", "__module__": "x", "__class__": "x", "content": "1"}
        for number in range(30):
            again = [dict(part, content=[])] * 9 if number else [part] * 9
            part = {
                "__loader__": "ListNode",
                "__module__": "builtins",
                "__class__": "list",
                "__id__": 10**9 + number,
                "content": [part, *again],
            }
        schema["content"]["content"]["evil"] = part

    with_schema(saved, change)
    with pytest.raises(ValueError, match="two objects have the number"):
        load(saved)
