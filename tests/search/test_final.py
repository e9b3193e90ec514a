"""The last fit keeps to the time that is left."""

import pytest

from hybridseg.search.clock import Clock
from hybridseg.search.final import refit, refit_seconds
from hybridseg.search.halving import Trial
from hybridseg.search.held_out import hold_out
from hybridseg.search.rows import without
from tests.search.stubs import HANDS, Known, data
from tests.search.test_held_out import labeled


def scored(stub, n_images, given, share=1.0):
    trial = Trial("stub", stub, share=share)
    trial.pace.by_epochs = stub.max_epochs is not None
    trial.held = hold_out(stub, given, n_images, trial.pace, Clock(1e9, HANDS), share=share)
    HANDS.time = 0.0
    return trial


def test_all_images_if_there_is_time(hands):
    given = labeled(*data(20))
    trial = scored(Known(), 6, given)
    model = refit(trial, without(trial), trial.held, given, Clock(20.5, HANDS))
    assert list(model.named_steps) == ["segmenter"]
    assert len(model[0].sums_) == 20
    assert hands.time == 20


def test_fewer_images_if_the_time_is_short(hands):
    given = labeled(*data(40))
    trial = scored(Known(), 6, given)
    with pytest.warns(UserWarning, match="too short for a fit of 'stub' to all 40 images: it was"):
        model = refit(trial, without(trial), trial.held, given, Clock(12.0, HANDS))
    assert 6 <= len(model[0].sums_) <= 12
    assert hands.time <= 12


def test_a_second_measurement_may_show_that_there_is_time(hands):
    """A fit whose seconds hardly depend on the images is not cut."""
    given = labeled(*data(40))
    trial = scored(Known(fit_cost=0.0), 6, given)
    trial.pace.fits = [(3, 1.0, 5.0)]
    model = refit(trial, without(trial), trial.held, given, Clock(30.0, HANDS))
    assert len(model[0].sums_) == 40


def test_fewer_epochs_if_the_time_is_short(hands):
    given = labeled(*data(20))
    trial = scored(Known(max_epochs=1), 6, given, share=0.1)
    trial.segmenter = Known(max_epochs=10)
    with pytest.warns(UserWarning, match="trained for 50% of them"):
        model = refit(trial, without(trial), trial.held, given, Clock(15.0, HANDS))
    assert model[0].max_epochs == 5
    assert len(model[0].sums_) == 20


def test_prediction_is_limited(hands):
    given = labeled(*data(20))
    trial = scored(Known(), 6, given)
    assert refit_seconds(trial, given, Clock(1e3, HANDS)) == pytest.approx(20)
    assert refit_seconds(trial, given, Clock(10.0, HANDS)) == pytest.approx(3.5)
