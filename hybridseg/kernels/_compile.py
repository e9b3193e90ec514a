"""The one place where the options of the compiled kernels are chosen.

``boundscheck=False`` and ``error_model="numpy"`` keep the inner loops free of branches; no kernel
asks for fast math, because a NaN must stay a NaN. Compilation is lazy (at the first call) and is
kept on disk; where no directory can be written, numba would raise, so the cache is dropped with
one warning.

Threads: a mean-field run meets hundreds of barriers. GNU OpenMP spins at each, which on a machine
with other work to do turns milliseconds into seconds (measured: 60 times), so its wait policy is
set to "passive" unless the environment says otherwise, and small problems stay on one thread.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when numba loads its threads

from numba import get_num_threads, njit, set_num_threads

#: Array elements per parallel loop below which a second thread costs more than it brings.
SMALL = 1 << 16

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError as error:  # numba finds no directory that it can write
        if "cannot cache" not in str(error):
            raise
        _warn_once()
        return njit(function, **options)


def _warn_once() -> None:
    if not getattr(_warn_once, "done", False):
        _warn_once.done = True  # type: ignore[attr-defined]
        warnings.warn(
            "compiled kernels cannot be kept: numba found no writable cache directory, so each "
            "process compiles anew. Set NUMBA_CACHE_DIR to a directory that can be written.",
            RuntimeWarning,
            stacklevel=4,
        )


def kernel(function: Function) -> Function:
    """Compile ``function`` for one thread, without the interpreter lock."""
    return _compiled(function)


def parallel_kernel(function: Function) -> Function:
    """Compile ``function`` so that its ``prange`` loops share numba's threads."""
    return _compiled(function, parallel=True)


@contextmanager
def threads_for(n_elements: int) -> Iterator[None]:
    """Run what is inside on one thread when its loops pass over few elements each."""
    before = get_num_threads()
    if n_elements < SMALL:
        set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)
