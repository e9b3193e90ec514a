"""The one place where the options of the compiled kernels are chosen.

``boundscheck=False`` and ``error_model="numpy"`` keep the inner loops free of branches (the checked
build, see `_checked`, has both kinds of checks); no kernel asks for fast math, because a NaN must
stay a NaN. Compilation is lazy (at the first call) and is
kept on disk; where no directory can be written, or what lies there cannot be read, numba would
raise, so the cache is passed over with one warning.

Threads: a mean-field run meets hundreds of barriers. GNU OpenMP spins at each, which on a machine
with other work to do turns milliseconds into seconds, so its wait policy is
set to "passive" unless the environment says otherwise, and small problems stay on one thread.

Processes: every parallel kernel, even on one thread, starts the OpenMP threads, and GNU OpenMP ends
a process that was forked after that. Start workers by "spawn" or with loky, joblib's default, not
by a bare fork (``multiprocessing`` with "fork" on Linux).

Python threads: where numba has neither OpenMP nor TBB it falls back to its "workqueue", which is
not safe to enter from two Python threads at once and then aborts the process. There, let worker
processes instead of threads call the solvers, or install ``tbb``; ``numba -s`` says which there is.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when numba loads its threads

from numba import config, njit, set_num_threads
from numba import get_num_threads as get_num_threads
from numba.core import cgutils, event
from numba.core.caching import IndexDataCacheFile

from hybridseg.kernels._checked import CHECKED, CheckedDispatcher
from hybridseg.kernels.vectors.instruction import instruction
from hybridseg.kernels.vectors.simd import ENABLED

#: Array elements per parallel loop below which a second thread costs more than it brings.
SMALL = 1 << 16

#: What code that was compiled under other settings has in its files' names.
_BUILD = "".join(
    name
    for name, differs in {
        ".plain": not ENABLED,
        ".checked": CHECKED,
        ".bounds": config.BOUNDSCHECK is not None,
    }.items()
    if differs
)
_IMPORT = re.compile(rb"from hybridseg\.kernels([\w.]*) import (\w+)")

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "boundscheck": CHECKED, "error_model": "numpy"}
    try:
        compiled = njit(function, cache=True, **options)
    except RuntimeError as error:  # numba finds no directory that it can write
        if "cannot cache" not in str(error):
            raise
        _warn_once()
        compiled = njit(function, **options)
    else:
        if hasattr(compiled, "_cache"):  # not where NUMBA_DISABLE_JIT gives the function back
            _tell_builds_apart(compiled._cache, function)
            compiled._cache = _ForgivingCache(compiled._cache)
    if CHECKED:
        compiled.__class__ = CheckedDispatcher
    return compiled


def _tell_builds_apart(cache: Any, function: Any) -> None:
    """Let numba's files have the build in their names, and know the sources that were compiled in.

    Numba itself knows neither our variables nor ``NUMBA_BOUNDSCHECK``, and looks at the file of the
    function alone, not at those of the functions that it calls.
    """
    base = cache._impl.filename_base + _BUILD
    stamp = (cache._impl.locator.get_source_stamp(), _sources(Path(function.__code__.co_filename)))
    cache._cache_file = IndexDataCacheFile(cache._cache_path, base, stamp)


@cache
def _sources(file: Path) -> str:
    """A number that changes with a file and with those of these folders that it imports."""
    known: dict[Path, bytes] = {}
    left = [file]
    while left:
        file = left.pop()
        if file not in known:
            try:
                known[file] = file.read_bytes()
            except OSError:  # such as a file within an archive, which does not change
                known[file] = b""
            for room, name in _IMPORT.findall(known[file]):
                module = Path(__file__).parent.joinpath(*room.decode().split("."))
                module = module / name.decode() if module.is_dir() else module
                left.append(module.with_suffix(".py"))
    contents = b"".join(known[file] for file in sorted(known))
    return sha256(contents).hexdigest()


class _ForgivingCache:
    """Numba's cache of one function, except that a broken directory only costs a compilation."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *args: Any) -> Any:
        try:
            return self._cache.load_overload(*args)
        except OSError:
            return None
        except Exception:  # whatever unpickling what another version left may raise
            with suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            self._cache.save_overload(*args)
        except OSError:
            _warn_once()


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


def inner_kernel(function: Function) -> Function:
    """Compile ``function`` for other kernels alone, which takes less time.

    What is left out is the way in from Python, which takes apart every argument.
    """
    return _inside(function)


def inlined_kernel(function: Function) -> Function:
    """As `inner_kernel`, but into each caller; an array costs a call seven arguments."""
    return _inside(function, forceinline=True)


def _inside(function: Function, **options: Any) -> Function:
    compiled = _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)
    if hasattr(compiled, "add_overload"):  # not where NUMBA_DISABLE_JIT gives the plain function

        def refuse(*_args: Any, **_options: Any) -> None:
            raise TypeError(
                f"{function.__name__} is compiled for other kernels alone; call one of those, or "
                "declare it with @kernel."
            )

        # numba would jump to address zero: let a call from Python find nothing that is compiled
        keep = partial(_keep_inside, compiled)
        vars(compiled).update(add_overload=keep, _compile_for_args=refuse)
    return compiled


def _keep_inside(dispatcher: Any, result: Any) -> None:
    dispatcher.overloads[tuple(result.signature.args)] = result


def parallel_kernel(function: Function) -> Function:
    """Compile ``function`` so that its ``prange`` loops share numba's threads."""
    return _compiled(function, parallel=True)


@instruction(lambda array: array)
def borrowed(_typing: Any, array: Any) -> Any:
    """The same array without its owner, who has to outlive it.

    Where arrays are passed on, their owners are counted up and down, which would take longer here
    than what is done with them.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(sig.args[0])(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


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


class _CompilationTold(event.Listener):
    """Says once a process that kernels are compiled; those that the disk has are no news.

    Numba tells of every compilation, other packages' as well, and of none that it found there.
    """

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not hasattr(self, "told") and module.startswith(__package__):
            self.told = True
            logging.getLogger("hybridseg").info(
                "compiling kernels: the first call of each takes seconds, up to a minute; they are "
                "kept on the disk, so that later processes need not wait."
            )

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompilationTold())
