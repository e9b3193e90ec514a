"""Budgets and predictions of seconds."""

import pytest

from hybridseg.search.clock import Clock, OutOfTimeError, Pace
from tests.search.stubs import Hands


def test_budget():
    hands = Hands()
    hands.time = 5.0
    clock = Clock(10.0, hands)
    assert (clock.passed, clock.left) == (0.0, 10.0)
    hands.time = 17.0
    assert (clock.passed, clock.left) == (12.0, -2.0)
    clock.check(12.0)
    with pytest.raises(OutOfTimeError, match=r"^$"):
        clock.check(11.9)


def test_one_size_is_proportional():
    pace = Pace()
    assert pace.fit_seconds(10) == 0
    pace.add(4, 1.0, 2.0)
    assert pace.fit_seconds(8) == pytest.approx(4.0)
    assert pace.fit_seconds(2) == pytest.approx(2.0)


def test_two_sizes_make_a_line():
    pace = Pace()
    pace.add(4, 1.0, 3.0)
    pace.add(10, 1.0, 4.2)
    assert pace.fit_seconds(110) == pytest.approx(4.2 + 100 * 0.2)


def test_seconds_that_fall_are_never_extrapolated_below_the_last():
    pace = Pace()
    pace.add(4, 1.0, 3.0)
    pace.add(10, 1.0, 2.0)
    assert pace.fit_seconds(1000) == pytest.approx(2.0)


def test_a_line_is_never_above_proportional():
    pace = Pace()
    pace.add(4, 1.0, 0.0)
    pace.add(10, 1.0, 5.0)
    assert pace.fit_seconds(20) == pytest.approx(10.0)


def test_the_quickest_of_equal_fits_counts():
    pace = Pace()
    for seconds in (60.0, 2.0, 3.0):  # the first compiles
        pace.add(4, 1.0, seconds)
    assert pace.fits == [(4, 1.0, 2.0)]


def test_epochs():
    """Time grows with epochs, and with images only above the crops of an epoch."""
    pace = Pace(by_epochs=True)
    pace.add(8, 0.25, 5.0)
    assert pace.fit_seconds(16, 1.0) == pytest.approx(20.0)
    assert pace.fit_seconds(128, 0.25) == pytest.approx(10.0)


def test_rung():
    pace = Pace(per_image=0.5)
    pace.add(4, 1.0, 2.0)
    assert pace.rung_seconds(12, 1.0, 3) == pytest.approx(3 * 4.0 + 12 * 0.5)
