"""The private parts of numba that the kernels use exist, and numba has no known fatal bug."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any, NamedTuple

import llvmlite.ir
import numba
import numpy as np
import pytest
from numba import config, njit

#: The private names of numba that the package uses, by module.
PRIVATE = {
    "numba.core.caching": ["IndexDataCacheFile"],
    "numba.core.cgutils": ["do_boundscheck", "get_or_insert_function", "unpack_tuple"],
    "numba.core.event": ["Listener", "register"],
    "numba.core.imputils": ["lower_builtin"],
    "numba.core.lowering": ["BaseLower"],
    "numba.core.registry": ["CPUDispatcher"],
    "numba.core.typing.templates": ["AbstractTemplate", "infer_global", "signature"],
    "numba.extending": ["intrinsic", "models", "register_jitable", "register_model"],
}
#: The attributes that the cache and the dispatcher of a function must have.
OF_CACHE = ["_cache_file", "_cache_path", "_impl.filename_base", "_impl.locator.get_source_stamp"]
OF_DISPATCHER = ["_cache", "_compile_for_args", "add_overload", "overloads", "py_func"]


def missing_from(owner: Any, names: list[str]) -> list[str]:
    found = []
    for name in names:
        part = owner
        for step in name.split("."):
            part = getattr(part, step, None)
        if part is None:
            found.append(name)
    return found


@pytest.mark.parametrize("module", PRIVATE)
def test_numba_has_the_private_parts_that_kernels_use(module):
    missing = missing_from(importlib.import_module(module), PRIVATE[module])
    assert not missing, (
        f"numba {numba.__version__} has no {missing} in {module}: find what stands for it now, in "
        "kernels/_compile.py, kernels/_checked.py and kernels/vectors/, or lower the ceiling of "
        "numba in pyproject.toml"
    )


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_functions_have_the_private_parts_that_the_cache_and_inner_kernels_use(tmp_path):
    compiled = njit(lambda x: x)
    missing = missing_from(compiled, OF_DISPATCHER)
    assert not missing, f"numba {numba.__version__}: a dispatcher has no {missing}"
    cached = njit(missing_from, cache=True)._cache
    missing = missing_from(cached, OF_CACHE)
    assert not missing, f"numba {numba.__version__}: a function's cache has no {missing}"


def test_llvmlite_writes_the_instructions_that_kernels_use():
    missing = missing_from(llvmlite.ir.IRBuilder, ["cttz", "fma", "select", "shuffle_vector"])
    assert not missing, f"llvmlite {llvmlite.__version__}: IRBuilder has no {missing}"


class Network(NamedTuple):
    capacities: np.ndarray
    excess: np.ndarray
    offsets: np.ndarray
    bits: np.ndarray


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_numba_tells_tuples_of_arrays_apart_by_their_dtypes():
    """Numba 0.60 sometimes used code for float64 when a named tuple held int64."""

    @njit
    def half(network, more):
        return network.capacities[0, 0] / 2

    found = Counter()
    for k in range(4000):
        dtype = (np.int64, np.float64)[k % 2]
        arrays = np.ones((4, 9), dtype), np.ones(9, dtype), np.arange(4), np.zeros(9, np.uint8)
        found[half(Network(*arrays), arrays[2:])] += 1
    assert found == {0.5: 4000}, f"numba {numba.__version__} mixes up types; see pyproject.toml"
