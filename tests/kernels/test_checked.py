"""In the checked build an access outside an array raises an error with file, line and index."""

import os
import subprocess
import sys
from inspect import getsourcelines

import numpy as np
import pytest
from numba import config, prange

from hybridseg.kernels._checked import CHECKED
from hybridseg.kernels._compile import inner_kernel, kernel, parallel_kernel
from hybridseg.kernels.laplacian.stencils import doubles, laplacian, store_narrow
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import simd_pairs as pairs

checked = pytest.mark.skipif(not CHECKED, reason="not the checked build; see the test below")


def test_the_checked_build_catches_what_leaves_an_array():
    """Run the tests of this file again, in the checked build."""
    if CHECKED or config.DISABLE_JIT or not simd.ENABLED:
        pytest.skip("only from the usual build")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HYBRIDSEG_CHECK": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(OUTSIDE) + 3} passed" in done.stdout, done.stdout


@kernel
def take_one(array, at):
    return array[at]


@kernel
def take(array, at):
    return simd.total(simd.load(array, at, 8))


@kernel
def put(array, at):
    simd.store(array, at, simd.fill(np.float64(7), 8))


@kernel
def collect(array, at):
    return simd.total(simd.gather(array, simd.fill(at, 4)))


@kernel
def halves(array, at):
    even, odd = pairs.load_every_second(array, at, 4)
    return simd.total(even + odd)


@kernel
def widened(array, at):
    return simd.total(doubles(array, at))


@kernel
def narrowed(array, at):
    store_narrow(array, at, simd.fill(np.float64(7), 8))


@kernel
def stencil(array, at):
    links = array.reshape(1, array.size)
    return simd.total(laplacian(links, (np.int64(1),), array, array, at))


@inner_kernel
def _inner(array, at):
    return simd.total(simd.load(array, at, 8))


@parallel_kernel
def shared(array, at):
    total = np.zeros(4)
    for i in prange(4):
        total[i] = _inner(array, at)
    return total


@parallel_kernel
def shared_one(array, at):
    total = np.zeros(4)
    for i in prange(4):
        total[i] = array[at + i]
    return total


@kernel
def part(array, at):
    return array.reshape(4, 8)[at][0]


#: Kernels on an array of 32 numbers, the last valid index, the first invalid ones, and the number
#: of elements that each kernel accesses.
OUTSIDE = {
    "take_one": (take_one, 31, (32, -33), 1),
    "take": (take, 24, (25, -1, 2**40), 8),
    "put": (put, 24, (25, -1, -(2**40)), 8),
    "collect": (collect, 31, (32, -1), 1),
    "halves": (halves, 24, (25, -1), 8),
    "widened": (widened, 24, (25, -1), 8),
    "narrowed": (narrowed, 24, (25, -1), 8),
    "stencil": (stencil, 23, (24, 0), 8),
    "shared": (shared, 24, (25, -1), 8),
    "shared_one": (shared_one, 28, (29,), 1),
    "part": (part, 3, (4,), 1),
}


@checked
@pytest.mark.parametrize("name", OUTSIDE)
def test_accesses_outside_an_array_are_named(name):
    run, last, beyond, lanes = OUTSIDE[name]
    room = np.full(96, 1.0)
    array = room[32:64]
    run(array, last)
    room[:] = 1
    lines, first = getsourcelines(_inner.py_func if name == "shared" else run.py_func)
    for at in beyond:
        touched = "element" if lanes == 1 else "elements"
        pattern = (
            "a kernel accessed memory outside of an array:"
            rf" \S*test_checked\.py:(\d+): {touched} -?\d+.* of an "
        )
        with pytest.raises(IndexError, match=pattern) as caught:
            run(array, at)
        place = str(caught.value).split("test_checked.py:")[1]
        assert first <= int(place.split(":")[0]) < first + len(lines)
        if name in ("take", "put", "collect", "halves", "widened", "narrowed", "shared"):
            assert f"{touched} {at}" in place
        assert (room == 1).all()  # nothing is written, neither outside nor inside
    run(array, last)  # an error that was raised is not raised again


@checked
def test_prefetching_may_go_anywhere():
    @kernel
    def ahead(array, at):
        simd.prefetch(array, at)

    ahead(np.ones(3), 10**9)


@checked
def test_kernels_that_stay_inside_raise_nothing():
    assert take(np.ones(8), 0) == 8
    assert shared(np.ones(8), 0).tolist() == [8, 8, 8, 8]


@checked
def test_checked_code_is_kept_apart():
    take(np.ones(8), 0)
    names = {take._cache._cache_file._index_name}
    assert all(".checked" in name for name in names)
