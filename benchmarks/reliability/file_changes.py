"""Ways to change a model file, by accident or by intent."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: From a file's content to another.
Change = Callable[[bytes, np.random.Generator], bytes]


class NothingToChange(Exception):  # noqa: N818
    """A file lacks the part that a change needs."""


# -- archives ------------------------------------------------------------------------------------


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return buffer.getvalue()


def _within(content: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Change the entries of the estimators' archive."""
    entries = _entries(content)
    inner = _entries(entries["model.skops"])
    change(inner)
    return _archive(entries | {"model.skops": _archive(inner)})


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def _flip_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the directory of the archive, which stands at its end."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        changed[-1 - rng.integers(min(len(changed), 400))] = rng.integers(256)
    return bytes(changed)


def _compress(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    if rng.integers(2):
        entries["manifest.json"] = b'{"hybridseg model": 1, "x": "' + b" " * (1 << 28) + b'"}'
    inner = _entries(entries["model.skops"])
    if rng.integers(2):
        entries["model.skops"] = _archive(inner, zipfile.ZIP_DEFLATED)
        return _archive(entries)
    return _archive(entries, int(rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])))


def _add_entry(content: bytes, rng: np.random.Generator) -> bytes:
    name = str(rng.choice(["../evil", "/tmp/evil", "networks/9.safetensors", "evil.npy"]))
    if rng.integers(2):
        return _within(content, lambda inner: inner.update({name: b"evil"}))
    return _archive(_entries(content) | {name: b"evil"})


def _remove_entry(content: bytes, rng: np.random.Generator) -> bytes:
    def remove(inner: dict[str, bytes]) -> None:
        inner.pop(str(rng.choice(list(inner))))

    return _within(content, remove)


# -- arrays --------------------------------------------------------------------------------------


def _array_entries(inner: dict[str, bytes]) -> list[str]:
    return [name for name in inner if name.endswith(".npy")]


def _with_array(content: bytes, rng: np.random.Generator, change: Callable[[Any], Any]) -> bytes:
    def replace(inner: dict[str, bytes]) -> None:
        name = str(rng.choice(_array_entries(inner)))
        buffer = io.BytesIO()
        np.save(buffer, change(np.load(io.BytesIO(inner[name]))))
        inner[name] = buffer.getvalue()

    return _within(content, replace)


def _change_shape(content: bytes, rng: np.random.Generator) -> bytes:
    def change(array: Any) -> Any:
        options = [
            lambda: np.zeros((), array.dtype),
            lambda: array[:0] if array.ndim else array.reshape(1),
            lambda: array[:-1] if array.ndim else array.reshape(1, 1),
            lambda: array[None],
            lambda: array.reshape(-1)[::2],
            lambda: np.concatenate([array, array]) if array.ndim else array,
            lambda: array.T if array.ndim > 1 else array[:, None] if array.ndim else array,
            lambda: np.asfortranarray(array),
        ]
        return options[rng.integers(len(options))]()

    return _with_array(content, rng, change)


def _change_dtype(content: bytes, rng: np.random.Generator) -> bytes:
    def change(array: Any) -> Any:
        kind = str(rng.choice(["f2", "f4", ">f8", "i1", "u8", "c16", "?", "S4", "U2", "M8[s]"]))
        if array.dtype.names:
            return array[str(rng.choice(array.dtype.names))].astype(kind)
        return array.astype(kind)

    return _with_array(content, rng, change)


def _change_values(content: bytes, rng: np.random.Generator) -> bytes:
    odd = [-1, 0, 1, 2, 255, 10**6, 2**31 - 1, -(2**31), 2**62]

    def change(array: Any) -> Any:
        array = array.copy()
        part = array[str(rng.choice(array.dtype.names))] if array.dtype.names else array
        if not part.size:
            return array
        where = rng.random(part.shape) < rng.choice([0.05, 0.5, 1.0])
        with np.errstate(all="ignore"):
            if part.dtype.kind == "f":
                part[where] = rng.choice([np.nan, np.inf, -np.inf, 1e300, 0.0, -1.0])
            elif part.dtype.kind in "iub":
                part[where] = np.array(rng.choice(odd)).astype(part.dtype)
        return array

    return _with_array(content, rng, change)


def _swap_arrays(content: bytes, rng: np.random.Generator) -> bytes:
    def swap(inner: dict[str, bytes]) -> None:
        one, other = (str(rng.choice(_array_entries(inner))) for _ in range(2))
        inner[one], inner[other] = inner[other], inner[one]

    return _within(content, swap)


def _lie_in_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Give an array a header with another size, or an invalid header."""

    def lie(inner: dict[str, bytes]) -> None:
        name = str(rng.choice(_array_entries(inner)))
        shape = str(
            rng.choice(["(999999999999,)", "(-1,)", "(1, 0)", "(((", "(True,)", "0", "(1e9,)"])
        )
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
        head = head.ljust(117) + "\n"
        inner[name] = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()

    return _within(content, lie)


# -- texts ---------------------------------------------------------------------------------------

_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2, 7, 10**6, 2**31, 2**63, 10**30, 0.5, -1e300, "", "x", "no", [], {}),
    *([1, 2], {"a": 1}, float("nan"), float("inf"), "9" * 100),
]


def _leaves(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all plain values in a JSON text."""
    items: Any = ()
    if isinstance(part, dict):
        items = part.items()
    elif isinstance(part, list):
        items = enumerate(part)
    else:
        yield path
    for key, inner in items:
        yield from _leaves(inner, (*path, key))


def _parent(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        root = root[key]
    return root


def _edited(text: bytes, rng: np.random.Generator, wanted: Callable[[Any], bool]) -> bytes:
    """A JSON text with one plain value replaced."""
    root = json.loads(text)
    places = [path for path in _leaves(root) if wanted(path)]
    if not places:
        raise NothingToChange
    path = places[rng.integers(len(places))]
    value = _VALUES[rng.integers(len(_VALUES))]
    if path[-1] == "content":  # a text of JSON within
        value = json.dumps(value)
    _parent(root, path)[path[-1]] = value
    return json.dumps(root).encode()


def _edit_schema(content: bytes, rng: np.random.Generator) -> bytes:
    def edit(inner: dict[str, bytes]) -> None:
        inner["schema.json"] = _edited(
            inner["schema.json"], rng, lambda path: path[-1] not in ("content", "__id__")
        )

    return _within(content, edit)


def _edit_values(content: bytes, rng: np.random.Generator) -> bytes:
    """Numbers and texts that the estimators hold."""

    def edit(inner: dict[str, bytes]) -> None:
        inner["schema.json"] = _edited(
            inner["schema.json"], rng, lambda path: path[-1] == "content"
        )

    return _within(content, edit)


def _swap_numbers(content: bytes, rng: np.random.Generator) -> bytes:
    """One object in the place of another."""

    def swap(inner: dict[str, bytes]) -> None:
        root = json.loads(inner["schema.json"])
        places = [path for path in _leaves(root) if path[-1] == "__id__"]
        one, other = (places[rng.integers(len(places))] for _ in range(2))
        _parent(root, one)["__id__"] = _parent(root, other)["__id__"]
        inner["schema.json"] = json.dumps(root).encode()

    return _within(content, swap)


def _remove_key(content: bytes, rng: np.random.Generator) -> bytes:
    def remove(inner: dict[str, bytes]) -> None:
        root = json.loads(inner["schema.json"])
        places = list(_leaves(root))
        path = places[rng.integers(len(places))]
        path = path[: rng.integers(1, len(path) + 1)]
        del _parent(root, path)[path[-1]]
        inner["schema.json"] = json.dumps(root).encode()

    return _within(content, remove)


def _nest(content: bytes, rng: np.random.Generator) -> bytes:
    depth = int(rng.choice([500, 5_000, 200_000]))
    if rng.integers(2):
        text = b'{"hybridseg model": 1, "x": ' + b"[" * depth + b"]" * depth + b"}"
        return _archive(_entries(content) | {"manifest.json": text})
    node = '{"__loader__":"ListNode","__module__":"builtins","__class__":"list","content":['

    def nest(inner: dict[str, bytes]) -> None:
        text = '{"protocol":2,' + node[1:] + node * depth + "]}" * depth + "]}"
        inner["schema.json"] = text.encode()

    return _within(content, nest)


def _edit_manifest(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    text = _edited(entries["manifest.json"], rng, lambda path: path[0] != "versions")
    return _archive(entries | {"manifest.json": text})


def _edit_weights(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    name = "networks/0.safetensors"
    if name not in entries:
        raise NothingToChange
    if rng.integers(2):
        return _archive(entries | {name: _flip(entries[name], rng)})
    size = int.from_bytes(entries[name][:8], "little")
    head, rest = entries[name][8 : 8 + size], entries[name][8 + size :]
    head = _edited(head, rng, bool)
    return _archive(entries | {name: len(head).to_bytes(8, "little") + head + rest})


CHANGES: dict[str, Change] = {
    "bits flipped": _flip,
    "cut short": _truncate,
    "directory of the archive changed": _flip_header,
    "entries compressed": _compress,
    "entry added": _add_entry,
    "entry removed": _remove_entry,
    "array of another shape": _change_shape,
    "array of another dtype": _change_dtype,
    "values of an array changed": _change_values,
    "arrays swapped": _swap_arrays,
    "header of an array lies": _lie_in_header,
    "schema changed": _edit_schema,
    "values of estimators changed": _edit_values,
    "one object for another": _swap_numbers,
    "part of the schema removed": _remove_key,
    "deep nesting": _nest,
    "manifest changed": _edit_manifest,
    "weights of a network changed": _edit_weights,
}
