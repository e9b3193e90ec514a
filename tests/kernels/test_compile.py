import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

from hybridseg.kernels import _compile
from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.vectors import simd as simd

RUN = """
import os, shutil, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from hybridseg.kernels.cuts.maxflow import build_arcs
    if sys.argv[1] == "later":
        shutil.rmtree(os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
        open(os.environ["NUMBA_CACHE_DIR"], "w").close()
    ends = np.zeros(1, np.int32)
    first, head = build_arcs(2, ends, ends + 1, np.ones(1))[:2]
    from hybridseg.kernels.cuts.expansion import potts_energy
    potts_energy(first, head, np.ones(2), np.ones((2, 2)), np.zeros(2, np.int32))
assert first.tolist() == [0, 1, 2]
found = [w for w in caught if "compiled kernels cannot be cached" in str(w.message)]
# numba takes its next place where the named one is no directory from the start
assert len(found) == (sys.argv[1] == "later"), [str(w.message) for w in caught]
"""


@pytest.mark.parametrize("broken", ["at once", "later"])
def test_a_broken_cache_directory_costs_one_warning(broken, tmp_path):
    """A file is at the place of the cache, from the start or since the import."""
    place = tmp_path / "cache"
    if broken == "at once":
        place.write_text("no directory")
    else:
        place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, broken],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NUMBA_CACHE_DIR": str(place)},
    )
    assert done.returncode == 0, done.stderr


def test_an_inner_kernel_serves_kernels_alone():
    """A call from Python is refused, whether the kernels are compiled or not."""

    @inner_kernel
    def twice(x):
        return 2 * x

    @kernel
    def twice_and_one(x):
        return twice(x) + 1

    if isinstance(twice, FunctionType):
        pytest.skip("numba's compiler is switched off")
    for _ in range(2):
        with pytest.raises(TypeError, match="twice can be called by other kernels only"):
            twice(3)
        assert twice_and_one(3) == 7


NAME = """
from hybridseg.kernels.cuts.maxflow import build_arcs
print(build_arcs._cache._cache_file._index_name)
"""


def test_code_of_each_build_is_kept_in_files_of_its_own():
    """Numba's own cache key contains none of these variables."""
    kinds = ("HYBRIDSEG_SIMD", "HYBRIDSEG_CHECK", "NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT")
    usual = {name: value for name, value in os.environ.items() if name not in kinds}
    builds = [
        {},
        {"HYBRIDSEG_SIMD": "0"},
        {"HYBRIDSEG_CHECK": "1"},
        {"HYBRIDSEG_CHECK": "1", "HYBRIDSEG_SIMD": "0"},
        {"NUMBA_BOUNDSCHECK": "1"},
    ]
    command = [sys.executable, "-c", NAME]
    names = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=usual | build
        ).stdout
        for build in builds
    ]
    assert len(set(names)) == len(builds), names


def test_compiled_code_knows_the_sources_that_it_was_made_of(tmp_path, monkeypatch):
    """A change in any file whose functions are compiled into a kernel makes its cache stale."""
    folder = shutil.copytree(Path(_compile.__file__).parent, tmp_path / "kernels")
    monkeypatch.setattr(_compile, "__file__", str(folder / "_compile.py"))

    def sources(file):
        _compile._read.cache_clear()
        return _compile._sources.__wrapped__(file)

    multigrid = folder / "laplacian" / "multigrid.py"
    before = sources(multigrid)
    assert sources(multigrid) == before
    used = ("laplacian/multigrid", "laplacian/random_walker", "laplacian/stencils")
    for name in (*used, "vectors/simd", "vectors/padding", "_compile"):
        text = (folder / f"{name}.py").read_text()
        (folder / f"{name}.py").write_text(text + "# changed\n")
        assert sources(multigrid) != before, name
        (folder / f"{name}.py").write_text(text)
    (folder / "superpixels" / "etps.py").write_text("# what is not compiled in does not matter")
    assert sources(multigrid) == before


def imports(path, root):
    """The kernel modules that a file imports, as Python's parser finds them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridseg.kernels"):
            module = root.joinpath(*node.module.split(".")[2:])
            names = [module, *(module / alias.name for alias in node.names)]
            found |= {name.with_suffix(".py") for name in names}
    return {file for file in found if file.exists()}


KERNELS = Path(_compile.__file__).parent


@pytest.mark.parametrize(
    "path", sorted(KERNELS.rglob("*.py")), ids=lambda path: str(path.relative_to(KERNELS))
)
def test_no_spelling_of_an_import_is_overlooked(path):
    assert set(_compile._imported_by(path.read_bytes())) == imports(path, KERNELS)


@pytest.mark.parametrize(
    "line",
    [
        "from hybridseg.kernels.vectors.masks import bits",
        "from hybridseg.kernels.vectors.masks import (\n    bits,\n)",
        "from hybridseg.kernels.vectors import simd, masks as m",
        "from hybridseg.kernels.vectors import (\n    simd,\n    masks as m,  # bits\n)",
        "    from hybridseg.kernels.vectors import masks",
    ],
)
def test_each_spelling_of_an_import_is_seen(line):
    assert KERNELS / "vectors" / "masks.py" in _compile._imported_by(line.encode())


TOLD = """
import logging
import numpy as np
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
from numba import njit
from hybridseg.kernels.contours import bits
njit(lambda: 0)()  # somebody else's
words = np.zeros(4, np.uint64)
assert bits.same(words, words)
assert bits.same(words[::2], words[::2])
"""


def test_compiling_is_told_once_and_reading_the_cache_is_not(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for n_told in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", TOLD],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.count("hybridseg: compiling kernels: the first call") == n_told
