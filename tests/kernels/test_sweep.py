"""The sweep over shapes in the checked build: no invalid access, and vectors equal plain loops.

It takes minutes, mostly to compile, so it runs only with ``HYBRIDSEG_CHECK=1``; see ``check`` in
the Makefile. Without the variable only the table of the sweep is tested.
"""

import json
import os
import subprocess
import sys

import pytest

from hybridseg.kernels._checked import CHECKED
from tests.kernels.sweep import CHANNELS, FAMILIES, HEIGHTS, LABELS, WIDTHS, shapes_in


def test_every_family_meets_every_kind_of_row():
    for name, kind in FAMILIES.items():
        shapes = shapes_in(name)
        assert {of.n_labels for of in shapes} == set(LABELS)
        assert {of.n_threads for of in shapes} == {1, 2}
        if kind.shapes is not None:
            continue
        assert {of.width for of in shapes} == set(WIDTHS) or kind.share > 1
        assert {of.height for of in shapes} == set(HEIGHTS)
        assert {of.n_channels for of in shapes} == set(CHANNELS)
        assert {of.masked for of in shapes} == {False, True}
        assert {of.depth > 0 for of in shapes} == {False, kind.volumes}


def test_short_rows_end_in_every_way_with_every_number_of_labels():
    met = {(of.n_labels, of.width) for of in shapes_in("dense_crf_of_few_points")}
    assert len(met) == len(LABELS) * 65
    assert (3, 33) in met  # a vector at the last but one point reaches beyond the last point


def start(names):
    command = [sys.executable, "-m", "tests.kernels.sweep", *names]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not CHECKED, reason="minutes long: HYBRIDSEG_CHECK=1 runs it")
def test_no_kernel_leaves_its_arrays_and_vectors_equal_plain_loops():
    names = list(FAMILIES)
    shares = min(2, os.cpu_count() or 1)
    runs = [start(names[share::shares]) for share in range(shares)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * shares, "the interpreter ended in a case"
    counts = dict(json.loads(line) for output in outputs for line in output.splitlines())
    assert set(counts) == set(names)
    failed = {
        name: count
        for name, count in counts.items()
        if count["outside"] or count["differing"] or count["errors"]
    }
    assert not failed, json.dumps(failed, indent=1)
    assert sum(count["cases"] for count in counts.values()) > 5000
