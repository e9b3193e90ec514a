"""The decorators that compile the kernels; all options of numba are set here.

Options: ``boundscheck=False`` and ``error_model="numpy"`` keep branches out of the inner loops (the
checked build, see `_checked`, has bounds checks). No kernel uses fast math, because a NaN must stay
a NaN. A kernel is compiled at its first call, and the code is cached on disk. Numba raises an error
if it finds no writable cache directory or an unreadable file; here that costs one warning, and the
kernel is compiled without the cache.

Threads: a mean-field run has hundreds of barriers. GNU OpenMP spins at a barrier, which is very
slow if the machine has other work to do. So its wait policy is set to "passive" unless the
environment says otherwise, and small problems run on one thread (`threads_for`).

Processes: every parallel kernel, even on one thread, starts the threads of OpenMP, and GNU OpenMP
ends a process that was forked after that. Start workers with "spawn" or with loky, the default of
joblib, not with a bare fork (``multiprocessing`` with "fork" on Linux).

Python threads: if numba has neither OpenMP nor TBB, it uses its "workqueue", which aborts the
process if two Python threads enter it at the same time. In that case call the solvers from worker
processes, or install ``tbb``; ``numba -s`` shows which threading layers are available.
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

#: The smallest number of array elements for which a parallel loop uses more than one thread. Below
#: it, starting a second thread takes longer than it saves.
MIN_ELEMENTS_FOR_THREADS = 1 << 16

#: The suffix of the cache files, which keeps builds with different settings apart; "" for the usual
#: build.
_BUILD = "".join(
    name
    for name, differs in {
        ".plain": not ENABLED,
        ".checked": CHECKED,
        ".bounds": config.BOUNDSCHECK is not None,
    }.items()
    if differs
)
#: An import of kernels: the module or folder, and the names, on one line or in parentheses.
_IMPORT = re.compile(rb"^\s*from hybridseg\.kernels([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function, **options: Any) -> Function:
    """Return the kernel of ``function``, with a cache if numba finds a directory for it."""
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
            _separate_builds(compiled._cache, function)
            compiled._cache = _ForgivingCache(compiled._cache)
    if CHECKED:
        compiled.__class__ = CheckedDispatcher
    return compiled


def _separate_builds(cache: Any, function: Any) -> None:
    """Put the build into the names of numba's cache files, and all sources into their stamp.

    Numba's own key contains neither our environment variables nor ``NUMBA_BOUNDSCHECK``, and its
    stamp covers the file of the function only, not the files of the functions that it calls.
    """
    base = cache._impl.filename_base + _BUILD
    stamp = (cache._impl.locator.get_source_stamp(), _sources(Path(function.__code__.co_filename)))
    cache._cache_file = IndexDataCacheFile(cache._cache_path, base, stamp)


@cache
def _sources(file: Path) -> str:
    """Return a checksum of a file and of all kernel modules that it imports, at any depth."""
    known: dict[Path, bytes] = {}
    left = [file]
    while left:
        file = left.pop()
        if file not in known:
            known[file], imported = _read(file)
            left += imported
    contents = b"".join(known[file] for file in sorted(known))
    return sha256(contents).hexdigest()


@cache
def _read(file: Path) -> tuple[bytes, list[Path]]:
    """Return the source of a kernel module, and the files of the kernel modules it imports."""
    try:
        source = file.read_bytes()
    except OSError:  # for example a file in an archive, which does not change
        source = b""
    return source, _imported_by(source)


def _imported_by(source: bytes) -> list[Path]:
    """Return the files of the kernel modules that a source imports."""
    files = []
    for dotted, names in _IMPORT.findall(source):
        module = Path(__file__).parent.joinpath(*dotted.decode().split("."))
        modules = [module]
        if module.is_dir():
            modules = [module / name.decode() for name in re.findall(rb"\w+", names)]
        files += [file for each in modules if (file := each.with_suffix(".py")).exists()]
    return files


class _ForgivingCache:
    """Numba's cache of one function; an unusable directory costs a compilation, not an error."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *args: Any) -> Any:
        try:
            return self._cache.load_overload(*args)
        except OSError:
            return None
        except Exception:  # unpickling a file of another version may raise anything
            with suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            self._cache.save_overload(*args)
        except OSError:
            _warn_once()


def _warn_once() -> None:
    """Warn that there is no cache, once per process."""
    if not getattr(_warn_once, "done", False):
        _warn_once.done = True  # type: ignore[attr-defined]
        warnings.warn(
            "compiled kernels cannot be cached: numba found no writable cache directory, so each "
            "process compiles them again. Set NUMBA_CACHE_DIR to a writable directory.",
            RuntimeWarning,
            stacklevel=4,
        )


def kernel(function: Function) -> Function:
    """Compile ``function`` for one thread; it runs without the interpreter lock."""
    return _compiled(function)


def inner_kernel(function: Function) -> Function:
    """Compile ``function`` for calls from other kernels only, which compiles faster.

    The wrapper for calls from Python, which unpacks every argument, is left out. A call from Python
    raises a TypeError.
    """
    return _inside(function)


def inlined_kernel(function: Function) -> Function:
    """Compile as `inner_kernel`, and inline the function into each caller.

    It is for short functions in inner loops: a call passes each 1-D array as seven arguments.
    """
    return _inside(function, forceinline=True)


def _inside(function: Function, **options: Any) -> Function:
    """Compile ``function`` without wrappers, and refuse calls from Python."""
    compiled = _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)
    if hasattr(compiled, "add_overload"):  # not where NUMBA_DISABLE_JIT gives the plain function

        def refuse(*_args: Any, **_options: Any) -> None:
            raise TypeError(
                f"{function.__name__} can be called by other kernels only; call one of them, or "
                "declare it with @kernel."
            )

        # A call from Python would jump to address zero. So numba's dispatcher gets no compiled
        # version to call, and its request to compile one raises the error above.
        keep = partial(_keep_inside, compiled)
        vars(compiled).update(add_overload=keep, _compile_for_args=refuse)
    return compiled


def _keep_inside(dispatcher: Any, result: Any) -> None:
    """Store a compiled version for other kernels, but not for calls from Python."""
    dispatcher.overloads[tuple(result.signature.args)] = result


def parallel_kernel(function: Function) -> Function:
    """Compile ``function``; its ``prange`` loops are shared by numba's threads."""
    return _compiled(function, parallel=True)


@instruction(lambda array: array)
def borrowed(_typing: Any, array: Any) -> Any:
    """Return a view of the array without reference counting; the array must outlive the view.

    Numba increments and decrements a reference count for each array that is passed to a function.
    In an inner loop that takes longer than the work of a short function.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(sig.args[0])(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


@contextmanager
def threads_for(n_elements: int) -> Iterator[None]:
    """Run the kernels inside on one thread if their loops are too short for several threads."""
    before = get_num_threads()
    if n_elements < MIN_ELEMENTS_FOR_THREADS:
        set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


class _CompilationLog(event.Listener):
    """Logs once per process that kernels are being compiled.

    Numba reports every compilation, also of other packages, but not the code that it reads from the
    cache.
    """

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not hasattr(self, "logged") and module.startswith(__package__):
            self.logged = True
            logging.getLogger("hybridseg").info(
                "compiling kernels: the first call of each takes seconds, up to a minute; the "
                "compiled code is kept on disk, so that later processes need not wait."
            )

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompilationLog())
