"""Successive halving with stubs of known quality and cost."""

import pytest

from hybridseg import DenseCRF
from hybridseg.search.clock import Clock
from hybridseg.search.halving import Halving, Trial, blended, has_epochs, rung_sizes, with_epochs
from tests.search.stubs import HANDS, Known, data
from tests.search.test_held_out import held, labeled


def searched(stubs, n_images=27, budget=1e9, eta=3, cv=2):
    trials = [Trial(f"{i}", stub) for i, stub in enumerate(stubs)]
    halving = Halving(
        trials,
        labeled(*data(n_images), cv=cv),
        Clock(budget, HANDS),
        eta=eta,
        metric="mean_iou",
    )
    return halving.run(), trials


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ((367, 7, 3, 3), [13, 40, 122, 367]),
        ((27, 5, 3, 2), [9, 27]),
        ((1, 5, 3, 3), [1]),
        ((5, 5, 3, 2), [5]),
        ((367, 1, 3, 3), [367]),
    ],
)
def test_sizes(arguments, sizes):
    assert rung_sizes(*arguments) == sizes


@pytest.mark.parametrize("best", range(6))
def test_the_best_is_kept(hands, best):
    ranked, trials = searched([Known(0.05 if i == best else 0.3) for i in range(6)], n_images=54)
    assert ranked[0] is trials[best]
    assert ranked[0].n_images == 54
    assert sum(trial.n_images == 54 for trial in trials) == 2
    assert sum(trial.status == "eliminated" for trial in trials) == 4


def test_equal_ones_are_ranked_by_time(hands):
    ranked, trials = searched([Known(0.1, fit_cost=4.0), Known(0.1, fit_cost=1.0)])
    assert ranked[0] is trials[1]


def test_with_few_images_an_earlier_one_stays_unless_another_is_surely_better(hands):
    ranked, trials = searched([Known(0.2), Known(0.199), Known(0.3)], n_images=2)
    assert ranked == [trials[0], trials[1], trials[2]]
    ranked, trials = searched([Known(0.2), Known(0.05), Known(0.3)], n_images=2)
    assert ranked[0] is trials[1]


def test_a_failing_one_is_recorded(hands):
    ranked, trials = searched([Known(fails=True), Known(0.1)])
    assert ranked == [trials[1]]
    assert trials[0].status == "failed: RuntimeError: this stub fails"


def test_all_fail(hands):
    with pytest.raises(RuntimeError, match="this stub fails") as caught:
        searched([Known(fails=True), Known(fails=True)])
    assert "2 segmenters, and all of them failed" in caught.value.__notes__[0]


def test_the_first_completes_in_any_budget(hands):
    ranked, trials = searched([Known(0.3), Known(0.0)], budget=0.1)
    assert ranked == [trials[0]]
    assert trials[1].status == "not started: no time was left"


def test_a_slow_one_is_stopped(hands):
    ranked, trials = searched([Known(0.2), Known(fit_cost=20.0), Known(0.1)], budget=300.0)
    assert ranked[0] is trials[2]
    assert trials[1].n_images == 0
    assert trials[1].status.startswith("stopped after")


@pytest.mark.parametrize("budget", [50.0, 100.0, 200.0, 1000.0])
def test_rungs_leave_time_for_refiners_and_the_last_fit(hands, budget):
    ranked, _ = searched([Known(0.1 * i, fit_cost=0.2) for i in range(5)], 54, budget)
    last = min(ranked[0].pace.fit_seconds(54), 0.35 * budget)
    assert hands.time + last <= budget


def test_more_time_more_images(hands):
    sizes = []
    for budget in (40.0, 80.0, 160.0, 1e9):
        hands.time = 0.0
        ranked, _ = searched([Known(0.1 * i, fit_cost=0.2) for i in range(4)], 54, budget)
        sizes.append(ranked[0].n_images)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 54


def test_epochs_grow_with_the_rungs(hands):
    ranked, trials = searched([Known(max_epochs=9, fit_cost=0.1), Known(0.1)], n_images=36)
    assert ranked[0] is trials[0]
    shares = [share for _, share, _ in trials[0].pace.fits]
    assert shares == pytest.approx([1 / 9, 1 / 3, 1.0])
    assert has_epochs(Known(max_epochs=9))
    assert not has_epochs(Known())
    assert with_epochs(Known(max_epochs=9), 1 / 9).max_epochs == 1
    assert with_epochs(DenseCRF(Known(max_epochs=10)), 0.25).estimator.max_epochs == 3
    given = Known(max_epochs=9)
    assert with_epochs(given, 1.0) is given


def test_blend_is_the_mean_of_the_costs(hands):
    given = labeled(*data(6), cv=2)
    trials = [Trial("a", Known(0.1)), Trial("b", Known(0.3))]
    costs = [held(trial.segmenter, given) for trial in trials]
    blend = blended(*trials, costs[0], costs[1].first(4), given, Clock(1e9))
    assert blend.name == "a + b"
    assert blend.held.positions == costs[0].positions[:4]
    fitted = blend.segmenter.fit(given.training.scenes, given.training.sources)
    for scene, own in zip(
        fitted.transform(given.pairs(blend.held.positions)[0]), blend.held.scenes, strict=True
    ):
        assert scene.unary == pytest.approx(own.unary, abs=1e-6)
