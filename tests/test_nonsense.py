"""Nonsense arguments give an error that names one of them, or a correct result.

The cases are a small part of those of ``python -m benchmarks reliability --only inputs``.
"""

import numpy as np
import pytest

from benchmarks.reliability.callables import Target, estimators, functions
from benchmarks.reliability.inputs import Child, case, judge, judge_same

TARGETS = {target.name: target for target in [*functions(), *estimators()]}


@pytest.mark.parametrize("name", TARGETS)
def test_nonsense_is_named(name):
    target = TARGETS[name]
    failures = []
    for number in range(6):
        given, changed = case(target, number, seed=3)
        outcome = judge(target, given)
        if outcome.kind == "failure":
            failures.append((number, changed, outcome.text))
    assert not failures


@pytest.mark.parametrize("name", TARGETS)
def test_the_form_of_an_array_in_memory_does_not_matter(name):
    """Read-only, strided, unaligned, big-endian and Fortran-ordered arrays."""
    failures = [(t, o.text) for t, o in judge_same(TARGETS[name]) if o.kind == "failure"]
    assert not failures


def spoil(array):
    array[0] = 0
    return array


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda array: np.full(3, np.nan), "result holds nan"),
        (lambda array: {"proba": array / 9}, "proba are no probabilities"),
        (lambda array: [][0], "IndexError"),
        (lambda array: int("x"), "names nothing: ValueError"),
        (lambda array: array / 0 > 1, "bare warning: divide by zero"),
        (spoil, "wrote to its arguments"),
    ],
)
def test_the_judge_sees_what_is_wrong(call, message):
    outcome = judge(Target("test", call, {}), {"array": np.ones((2, 2))})
    assert outcome.kind == "failure"
    assert message in outcome.text


def test_the_same_seed_draws_the_same_cases():
    target = TARGETS["mean_field"]
    drawn = [[case(target, n, seed)[1] for n in range(20)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_children_that_die_are_counted():
    """A crash or a hang fails one case, and the next case runs in a new process."""
    child = Child(seed=0)
    try:
        child.process.kill()
        found = child.ask("pixel_accuracy", 0)
        assert found[0][1].kind == "failure"
        assert "crash: exit code -9" in found[0][1].text
        assert child.process.is_alive()
    finally:
        child.close()
