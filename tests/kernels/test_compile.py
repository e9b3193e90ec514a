import os
import subprocess
import sys

import pytest

RUN = """
import os, shutil, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from hybridseg.kernels.maxflow import build_arcs
    if sys.argv[1] == "later":
        shutil.rmtree(os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
        open(os.environ["NUMBA_CACHE_DIR"], "w").close()
    ends = np.zeros(1, np.int32)
    first = build_arcs(2, ends, ends + 1, np.ones(1))[0]
    from hybridseg.kernels.expansion import potts_energy
    potts_energy(first, ends, np.ones(1), np.ones((2, 2)), np.zeros(2, np.int32))
assert first.tolist() == [0, 1, 2]
found = [w for w in caught if "compiled kernels cannot be kept" in str(w.message)]
# numba takes its next place where the named one is no directory from the start
assert len(found) == (sys.argv[1] == "later"), [str(w.message) for w in caught]
"""


@pytest.mark.parametrize("broken", ["at once", "later"])
def test_a_broken_cache_directory_costs_one_warning(broken, tmp_path):
    """A file lies where the cache should be, from the start or since the import."""
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
