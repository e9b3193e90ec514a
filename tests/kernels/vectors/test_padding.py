"""The rule for the padding that vectors need, and rows that once had too little."""

import os
import subprocess
import sys

import numpy as np
import pytest
from skimage import data

from hybridseg.features import slic
from hybridseg.kernels._compile import kernel
from hybridseg.kernels.superpixels.slic import LANES
from hybridseg.kernels.superpixels.slic_rows import WORD
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import way as _way
from hybridseg.kernels.vectors.padding import padded, room_for, whole


@kernel
def in_a_kernel(n, lanes, anywhere):
    return padded(n, lanes), room_for(n, lanes, anywhere), whole(n, lanes)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16, 64])
def test_room_holds_every_vector_and_no_more_than_it_must(lanes):
    for n in range(1, 200):
        assert padded(n, lanes) == max(start + lanes for start in range(0, n, lanes))
        assert 0 <= n - whole(n, lanes) < lanes
        assert whole(n, lanes) % lanes == 0
        for anywhere in (1, 8):
            last = n - 1 + anywhere  # a vector that begins at the last number ends here
            room = room_for(n, lanes, anywhere)
            assert room % lanes == 0
            assert last <= room < last + lanes
            assert in_a_kernel(n, lanes, anywhere) == (padded(n, lanes), room, whole(n, lanes))


def test_a_row_of_slots_has_a_place_behind_its_last_pixel():
    """The sums of a row end within the padding for the last vector of a cell."""
    assert all(room_for(width, WORD, LANES) > width for width in range(1, 1000))


def both_ways(monkeypatch, run):
    found = [run()]
    monkeypatch.setattr(_way.simd, "ENABLED", False)
    return [*found, run()]


@pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")
@pytest.mark.parametrize("size", ["crop", (240, 319), (100, 58), (64, 127), (33, 190)])
def test_the_last_cell_of_a_row_leaves_the_next_row_alone(size, monkeypatch):
    """The last vector of the last cell once overwrote the first pixels of the next row."""
    if size == "crop":
        image = data.astronaut()[100:288, 80:331]
    else:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for n_segments in (100, 400):
        with_vectors, plain = both_ways(monkeypatch, lambda n=n_segments: slic(image, n))
        monkeypatch.undo()
        np.testing.assert_array_equal(with_vectors, plain)
        assert with_vectors.min() == 0


WIDE = """
import numpy as np
from hybridseg.features import slic
image = np.random.default_rng(0).integers(0, 256, (191, 254, 3), dtype=np.uint8)
assert slic(image, 400).min() == 0
"""


def test_an_image_254_wide_does_not_end_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-c", WIDE], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
