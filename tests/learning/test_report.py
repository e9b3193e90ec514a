"""What a fitted refiner tells about its learning."""

import numpy as np
import pytest

from hybridseg.learning.gate import choose_strength
from hybridseg.learning.report import LearningReport, Step

STEPS = (Step(0, 0.5, 0.1), Step(1, 0.4, 0.2), Step(0, 0.6, 0.1))


def report(right=(80, 90, 85)):
    tables = np.array([[[[n, 100 - n], [100 - n, n]]] * 5 for n in right])
    gate = choose_strength((1.0, 0.5), tables, spared=((), (1,)))
    params = {"bilateral_weight": 3.25, "compatibility": np.array([[0, 2.0], [2.0, 0]])}
    start = {"bilateral_weight": 2.0, "compatibility": np.array([[0, 1.0], [1.0, 0]])}
    return LearningReport(params, start, STEPS, gate, "iou", 1.5)


def test_losses_are_listed_fold_by_fold():
    np.testing.assert_array_equal(report().losses[0], [0.5, 0.4])
    np.testing.assert_array_equal(report().losses[1], [0.6])


def test_the_table_names_parameters_and_the_decision():
    text = str(report())
    assert "bilateral_weight" in text
    assert "3.25" in text
    assert "0 .. 2" in text
    assert "chose strength 1: mean IoU +15.15 points on 5 held-out images" in text
    refused = str(report((80, 70, 75)))
    assert "refused what was learned. On 5 held-out images the best change" in refused
    assert "and label 0 changed by -6" in refused
    assert report((80, 70, 75)).strength == 0


def test_the_page_holds_the_same():
    page = report()._repr_html_()
    assert page.count("<tr>") == 3
    assert "chose strength 1" in page


@pytest.mark.parametrize("gated", [True, False])
def test_the_plot_shows_folds_and_gains(gated):
    plt = pytest.importorskip("matplotlib.pyplot")
    known = report()
    if not gated:
        known = LearningReport(known.params, known.start, STEPS, None, "iou", 1.5)
        assert known.strength == 1.0
    trace, judged = known.plot()
    assert len(trace.lines) == 2
    assert len(judged.lines) == (5 if gated else 1)
    plt.close("all")
