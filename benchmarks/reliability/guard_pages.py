"""The cases of the sweep with inaccessible memory directly before or after every array.

NumPy and numba allocate all arrays through an allocator that puts an inaccessible page beside each.
An access outside of an array then ends the process, in compiled code without any checks. The
allocator is a small C file, built by the machine's own compiler.

    python -m benchmarks.reliability.guard_pages before slic_superpixels 0     # one child by hand
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.reliability.tables import Table

SOURCE = Path(__file__).with_suffix(".c")
PLACES = ("before", "after")
COLUMNS = ("family", "page", "cases", "blocks guarded", "processes that died", "where")

TEXT = """
The same cases in the normal build, with vectors and with plain loops. An inaccessible memory page
lies directly before the first byte of every array, or directly after the last one. A kernel that
leaves an array then ends its process, and the table counts it, with the case and the signal. Arrays
that kernels allocate begin and end within 128 bytes of the page, because numba puts a header before
them and aligns their beginning.
"""


def measure(seconds: float, seed: int) -> list[Table]:
    """Run all families with both pages."""
    del seconds, seed  # the cases are fixed
    title = "Cases beside inaccessible memory"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return [Table(title, "Not run: it needs Linux and a C compiler.", COLUMNS, ())]
    from tests.kernels.sweep import FAMILIES

    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard_pages.so"
        build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-lpthread"]
        subprocess.run(build, check=True)
        rows = [_row(library, place, name) for name in FAMILIES for place in PLACES]
    totals = tuple(sum(row[k] for row in rows) for k in (2, 3, 4))
    return [Table(title, TEXT, COLUMNS, (*rows, ("all", "", *totals, "")))]


def _row(library: Path, place: str, name: str) -> tuple[Any, ...]:
    """Run the cases of a family; after a process dies, another continues."""
    first, n_blocks, died = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "case"
        while True:
            command = [
                sys.executable,
                "-m",
                "benchmarks.reliability.guard_pages",
                place,
                name,
                str(first),
            ]
            own = {"GUARD_PAGES": str(library), "GUARD_NOTES": str(notes)}
            done = subprocess.run(command, check=False, env=os.environ | own)
            number, blocks, *shape = notes.read_text().split(maxsplit=2)
            first, n_blocks = int(number) + 1, n_blocks + int(blocks)
            if done.returncode == 0:
                break
            died.append(f"{_signal(done.returncode)} at {' '.join(shape)}")
            print(f"  {name}, page {place}: {died[-1]}", flush=True)
    row = (name.replace("_", " "), place, first, n_blocks, len(died), "; ".join(died[:2]))
    print(*row, sep=" | ", flush=True)
    return row


def _signal(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# -- in a child -----------------------------------------------------------------------------------


class _Allocator(ctypes.Structure):
    _fields_ = (
        *(("ctx", ctypes.c_void_p), ("malloc", ctypes.c_void_p), ("calloc", ctypes.c_void_p)),
        *(("realloc", ctypes.c_void_p), ("free", ctypes.c_void_p)),
    )


#: Of Python's domains of memory, the one that needs no interpreter lock.
_RAW = 0
#: Place of ``PyDataMem_SetHandler`` among NumPy's C functions.
_SET_HANDLER = 304


def guard(library: Path, place: str) -> Any:
    """Let NumPy and numba allocate all arrays beside a guard page; return the library."""
    from numba.core.registry import cpu_target
    from numba.core.runtime import _nrt_python
    from numpy._core import _multiarray_umath

    from hybridseg.kernels.vectors import simd as _simd

    _simd.LINE = 1  # aligned arrays have no more room than they need
    guards = ctypes.CDLL(str(library))
    ctypes.c_int.in_dll(guards, "at_end").value = place == "after"
    python = ctypes.pythonapi
    usual = _Allocator()
    python.PyMem_GetAllocator(_RAW, ctypes.byref(usual))
    guards.keep_usual(ctypes.byref(usual))
    own = _Allocator.in_dll(guards, "python_allocator")
    python.PyMem_SetAllocator(_RAW, ctypes.byref(own))
    assert cpu_target.target_context is not None  # made at first use, and numba's memory with it
    _nrt_python.memsys_use_cpython_allocator()
    functions = ctypes.POINTER(ctypes.c_void_p).from_buffer(
        ctypes.c_void_p(_address_of(_multiarray_umath._ARRAY_API))
    )
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    handler = ctypes.addressof(ctypes.c_char.in_dll(guards, "numpy_handler"))
    capsule = python.PyCapsule_New(handler, b"mem_handler", None)
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[_SET_HANDLER])
    set_handler(capsule)
    ctypes.c_int.in_dll(guards, "is_on").value = 1
    return guards


def _address_of(capsule: Any) -> int:
    python = ctypes.pythonapi
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return int(python.PyCapsule_GetPointer(capsule, None))


def run_child(place: str, name: str, first: int) -> None:
    """Run the cases of a family from number ``first`` on; note each before it runs."""
    from tests.kernels import sweep

    notes = Path(os.environ["GUARD_NOTES"])
    guards = guard(Path(os.environ["GUARD_PAGES"]), place)
    n_blocks, shapes = ctypes.c_long.in_dll(guards, "n_blocks"), sweep.shapes_in(name)[first:]
    number = iter(range(first, first + len(shapes)))

    def note(of: Any) -> None:
        notes.write_text(f"{next(number)} {n_blocks.value} {of}")

    notes.write_text(f"{first - 1} 0 none")
    count = sweep.count_cases(name, shapes, note)
    notes.write_text(f"{first + len(shapes) - 1} {n_blocks.value} none")
    if count.failed:
        print(*count.named, sep="\n", flush=True)
        os._exit(3)
    os._exit(0)  # arrays of ours may outlive the library


if __name__ == "__main__":
    run_child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
