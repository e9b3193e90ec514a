"""Run the cases of a family, with vectors and without."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import get_num_threads, set_num_threads

from hybridseg.kernels.vectors import simd as simd
from tests.kernels.sweep.cases import (
    _NAMED,
    FAMILIES,
    Family,
    Run,
    Shape,
    shapes_of,
)


@dataclass
class Count:
    """The result of a family's cases."""

    cases: int = 0
    outside: int = 0
    differing: int = 0
    errors: int = 0
    named: list[str] = field(default_factory=list)

    def name(self, of: Shape, what: str) -> None:
        if len(self.named) < _NAMED:
            self.named.append(f"{of}: {what}")

    @property
    def failed(self) -> int:
        return self.outside + self.differing + self.errors


def shapes_in(name: str) -> list[Shape]:
    """The cases of a family."""
    kind = FAMILIES[name]
    return list((kind.shapes or shapes_of)(kind, name))


def count_cases(name: str, shapes: list[Shape], each: Run = lambda of: None) -> Count:
    """Run some cases of a family; ``each`` is called with every case before it runs."""
    kind, count = FAMILIES[name], Count()
    threads = get_num_threads()
    for of in shapes:
        each(of)
        count.cases += 1
        try:
            set_num_threads(min(of.n_threads, threads))
            fast, plain = (_arrays(kind.run, of, ways) for ways in (True, False))
        except IndexError as error:
            count.outside += 1
            count.name(of, str(error))
        except Exception as error:  # a case that the function refuses is an error in the sweep
            count.errors += 1
            count.name(of, f"{type(error).__name__}: {error}")
        else:
            if not all(map(_alike(kind), fast, plain)) or len(fast) != len(plain):
                count.differing += 1
                count.name(of, "vectors and plain loops differ")
        finally:
            set_num_threads(threads)
    return count


def _arrays(run: Run, of: Shape, vectors: bool) -> list[Any]:
    before, simd.ENABLED = simd.ENABLED, simd.ENABLED and vectors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(of)
    finally:
        simd.ENABLED = before
    parts = found if isinstance(found, (tuple, list)) else [found]
    return [np.asarray(part) for part in parts]


def _alike(kind: Family) -> Callable[[Any, Any], bool]:
    def alike(a: Any, b: Any) -> bool:
        if kind.atol is None:
            return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return a.shape == b.shape and np.allclose(a, b, kind.rtol, kind.atol, equal_nan=True)

    return alike
