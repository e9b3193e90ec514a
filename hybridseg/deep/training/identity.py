"""What a setting is, in words that another process finds, too."""

from __future__ import annotations

import dis
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Before every checksum, which says nothing to people.
CHECKSUM = "#"

_PLAIN = (str, bytes, bool, int, float, complex, type(None))


def described(value: Any) -> str:
    """Say what a value is: equal values in equal words, others in others.

    Networks and losses are told by their class, their hyperparameters and their weights; functions
    by their code and what it refers to; classes by their names.
    """
    return _described(value, ())


def digest(module: nn.Module) -> str:
    """A short name for a module's weights."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:  # of get_extra_state
            found.update(described(value).encode())
    return CHECKSUM + found.hexdigest()[:16]


def _described(value: Any, holders: tuple[int, ...]) -> str:
    """A description; ``holders`` are the objects that this one is described for."""
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
        return _function(value, inner)
    if hasattr(value, "__wrapped__"):  # a compiled or cached function
        return f"{_name(value)}({_described(value.__wrapped__, inner)})"
    if hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
    plain: Any = object.__repr__
    if type(value).__repr__ is plain and hasattr(value, "__dict__"):
        return _name(value) + _named(vars(value), inner, "()")
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ between processes


def _module(module: nn.Module, holders: tuple[int, ...]) -> str:
    """A loss in full; of a module with weights, which may have many parts, a checksum of that."""
    own = {name: part for name, part in vars(module).items() if not name.startswith("_")}
    del own["training"]
    words = _name(module) + _named(own | dict(module.named_children()), holders, "()")
    if not module.state_dict():
        return words
    whole = hashlib.sha256(f"{words} {digest(module)}".encode())
    return f"{_name(module)}{CHECKSUM}{whole.hexdigest()[:16]}"


def _function(function: FunctionType, holders: tuple[int, ...]) -> str:
    """A name, and a checksum of the code, its defaults and the values that it takes from around."""
    code = function.__code__
    known = {
        "defaults": [function.__defaults__, function.__kwdefaults__],
        "closure": [_content(cell) for cell in function.__closure__ or ()],
        "globals": {
            name: function.__globals__[name]
            for name in sorted(set(_global_names(code)) & function.__globals__.keys())
            if _is_own(function.__globals__[name], function)
        },
    }
    words = f"{_code(code, holders)} {_described(known, holders)}"
    whole = hashlib.sha256(words.encode()).hexdigest()[:16]
    return f"{function.__module__}.{function.__qualname__}{CHECKSUM}{whole}"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a variable that has no value yet
        return None


def _code(code: CodeType, holders: tuple[int, ...]) -> str:
    """What code does, wherever it stands: no line numbers, no files."""
    constants = [
        _code(part, holders) if isinstance(part, CodeType) else _described(part, holders)
        for part in code.co_consts
    ]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return f"{code.co_code.hex()} {counts} {code.co_names} {constants}"


def _global_names(code: CodeType) -> Iterator[str]:
    """The global variables that code and the functions in it read."""
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _global_names(part)


def _is_own(value: Any, function: FunctionType) -> bool:
    """Whether a global variable is a plain value, or a function of the same module."""
    if isinstance(value, FunctionType) or hasattr(value, "__wrapped__"):
        return getattr(value, "__module__", None) == function.__module__
    return isinstance(value, (*_PLAIN, list, tuple, dict, np.ndarray, np.generic, Tensor))


def _array(values: np.ndarray | Tensor, holders: tuple[int, ...]) -> str:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if array.size <= 100 or array.dtype.hasobject:
        return _described(array.tolist(), holders)
    whole = hashlib.sha256(array.tobytes())
    return f"{array.dtype} {array.shape} {CHECKSUM}{whole.hexdigest()[:16]}"


def _named(parts: Mapping[Any, Any], holders: tuple[int, ...], brackets: str) -> str:
    described_parts = (f"{name}={_described(part, holders)}" for name, part in parts.items())
    return f"{brackets[0]}{', '.join(sorted(described_parts))}{brackets[1]}"


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
