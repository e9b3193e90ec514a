"""Descriptions of settings, which another process finds too."""

import copy
import functools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from hybridseg.deep.training.identity import described
from hybridseg.losses import SoftDice
from tests.deep.subjects import (
    Shifted,
    shifting,
)


def test_settings_are_described_alike_in_every_process():
    value = {"b": np.arange(200), "a": [SoftDice(), Shifted(2), {1.5, 0.5}], "c": str.upper}
    assert described(value) == described(copy.deepcopy(value))
    assert described(value) != described(value | {"b": np.arange(1, 201)})
    assert "0x" not in described(value)
    ring = Shifted(1)
    ring.by = [ring]
    assert described(ring) == described(copy.deepcopy(ring))


FUNCTIONS = """
    from functools import lru_cache, partial, wraps

    import numpy as np

    STRENGTH = 0.5

    def around(by, kind=frozenset("abcdef")):
        def inner(x, *, more=by):
            return [x + by + STRENGTH + (y in {"p", "q", "r"}) for y in kind], helped(more)
        return inner

    def helped(x):
        return helped(x - 1) if x else np.sum(x)

    @lru_cache
    def cached(x):
        return x * 3

    @wraps(helped)
    def wrapped(x):
        return cached(x)

    class Way:
        def go(self, x):
            return x

    found = [around(1), partial(around(2), more=3), cached, wrapped, Way().go, lambda x: x @ x]
    found.append(lambda x: STRENGTH * x if x else (lambda y: helped(y)))
"""


def described_elsewhere(*texts):
    """The fingerprints in another process, with other addresses and another order of sets."""
    words = "from hybridseg.deep.training.identity import described\n"
    for text in texts:
        words += f"{textwrap.dedent(text)}\nfor each in found: print(described(each))\n"
    found = subprocess.run(
        [sys.executable, "-c", words],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    return np.reshape(lines, (len(texts), -1)).tolist()


def test_functions_are_described_by_what_they_do():
    changed = FUNCTIONS.replace("0.5", "0.6").replace("x * 3", "x * 4").replace("x @ x", "x + x")
    here = {"__name__": "__main__"}
    exec(textwrap.dedent(FUNCTIONS), here)
    before = [described(each) for each in here["found"]]
    again, now = described_elsewhere(FUNCTIONS, changed)
    assert len(set(before)) == 7
    assert again == before
    assert [k for k in range(7) if before[k] == now[k]] == [4]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (shifting(1), shifting(2)),
        (shifting(np.zeros(200)), shifting(np.ones(200))),
        (lambda x: x.real, lambda x: x.imag),
        (lambda x, y=1: x, lambda x, y=2: x),
        (lambda x, *, y=1: x, lambda x, *, y=2: x),
        (lambda: lambda: 1, lambda: lambda: 2),
        (Shifted(1).shift, Shifted(2).shift),
        (functools.partial(shifting, 1), functools.partial(shifting, 2)),
        (functools.partial(shifting, sign=1), functools.partial(shifting, by=1)),
        (functools.lru_cache(lambda: 1), functools.lru_cache(lambda: 2)),
    ],
)
def test_functions_that_differ_are_told_apart(one, other):
    assert described(one) == described(one)
    assert described(one) != described(other)


def test_functions_that_know_themselves_or_nothing_yet_are_described():
    def loop(n):
        return loop(n - 1) if n else late

    assert described(loop) == described(loop)
    late = 1
    assert loop(2) == late
