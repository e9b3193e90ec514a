"""Fingerprints of settings: texts that are the same in every process for equal settings."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: The prefix of every checksum, by which error messages find and omit them.
CHECKSUM = "#"

#: The most values of an array that are listed; of larger arrays there is a checksum.
_MAX_LISTED = 100

_PLAIN = (str, bytes, bool, int, float, complex, type(None))
_CONTAINERS = (list, tuple, dict, np.ndarray, np.generic, Tensor)


def described(value: Any) -> str:
    """The fingerprint of a value.

    A network or loss is described by its class, its hyperparameters and a checksum of its weights;
    a function by its bytecode, its defaults and the variables that it reads; a class by its name.
    """
    return _described(value, ())


def digest(module: nn.Module) -> str:
    """A checksum of the weights of a module."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:  # what get_extra_state returned
            found.update(described(value).encode())
    return CHECKSUM + found.hexdigest()[:16]


def _described(value: Any, holders: tuple[int, ...]) -> str:
    """The fingerprint of a value; ``holders`` are the ids of the objects that contain it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return repr(value)
    if id(value) in holders:
        return "itself"
    inner = (*holders, id(value))
    if isinstance(value, nn.Module):
        return _module(value, inner)
    if isinstance(value, np.ndarray | Tensor):
        return _array(value, inner)
    if isinstance(value, Mapping):
        return _named(value, inner, "{}")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_described(part, inner) for part in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_described(part, inner) for part in value))}}}"
    if isinstance(value, functools.partial):
        return _described(["partial", value.func, value.args, value.keywords], inner)
    if isinstance(value, MethodType):
        return _described([value.__func__, value.__self__], inner)
    if isinstance(value, FunctionType):
        return f"{_qualified(value)}{_checksum(_described(_facts(value), inner))}"
    if isinstance(value, CodeType):
        counts = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount
        parts = counts, value.co_flags, value.co_code, value.co_names, value.co_consts
        return _described(parts, inner)
    if hasattr(value, "__wrapped__"):  # a compiled or cached function
        return f"{_qualified(type(value))}({_described(value.__wrapped__, inner)})"
    if hasattr(value, "__qualname__"):
        return _qualified(value)
    plain: Any = object.__repr__
    if type(value).__repr__ is plain and hasattr(value, "__dict__"):
        return _qualified(type(value)) + _named(vars(value), inner, "()")
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ between processes


def _facts(function: FunctionType) -> dict[str, Any]:
    """The bytecode of a function, its defaults and the values of the variables that it reads."""
    names = set(_names(function.__code__)) & function.__globals__.keys()
    known = {name: function.__globals__[name] for name in names}
    return {
        "code": function.__code__,
        "defaults": [function.__defaults__, function.__kwdefaults__],
        "closure": [_content(cell) for cell in function.__closure__ or ()],
        "globals": {name: value for name, value in known.items() if _counts(value, function)},
    }


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in code and in the functions nested in it."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _counts(value: Any, function: FunctionType) -> bool:
    """Whether a global variable of a function is part of its fingerprint.

    Plain values and containers are, and functions of the same module.
    """
    if isinstance(value, FunctionType) or hasattr(value, "__wrapped__"):
        return getattr(value, "__module__", None) == function.__module__
    return isinstance(value, _PLAIN + _CONTAINERS)


def _content(cell: Any) -> Any:
    """The value of a closure variable; None if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _module(module: nn.Module, holders: tuple[int, ...]) -> str:
    """The class and attributes of a module; only a checksum of these if it has weights."""
    own = {name: part for name, part in vars(module).items() if not name.startswith("_")}
    del own["training"]
    name = _qualified(type(module))
    words = name + _named(own | dict(module.named_children()), holders, "()")
    return f"{name}{_checksum(f'{words} {digest(module)}')}" if module.state_dict() else words


def _array(values: np.ndarray | Tensor, holders: tuple[int, ...]) -> str:
    """The values of a small array; dtype, shape and checksum of a large one."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if array.size <= _MAX_LISTED or array.dtype.hasobject:
        return _described(array.tolist(), holders)
    return f"{array.dtype} {array.shape} {_checksum(array.tobytes())}"


def _named(parts: Mapping[Any, Any], holders: tuple[int, ...], brackets: str) -> str:
    """The entries of a mapping as ``name=value``, sorted, within brackets."""
    words = (f"{name}={_described(part, holders)}" for name, part in parts.items())
    return f"{brackets[0]}{', '.join(sorted(words))}{brackets[1]}"


def _checksum(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return CHECKSUM + hashlib.sha256(raw).hexdigest()[:16]


def _qualified(named: Any) -> str:
    """The full name of a class or function."""
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"
