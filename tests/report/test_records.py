"""Rows of figures and their averages."""

import numpy as np
import pytest

from hybridseg.report import Row, average_rows
from hybridseg.report.records import baseline_of
from tests.report.conftest import rows_of


def row(refiner, score, unary="Forest"):
    return Row(unary, refiner, score, score / 2, 1.0, 2.0, 3.0)


def test_a_row_has_a_name_and_a_sum_of_seconds():
    assert row("", 0.5).name == "Forest"
    assert row("CRF", 0.5).name == "Forest + CRF"
    assert row("CRF", 0.5).seconds == 6.0


def test_averages_leave_undefined_scores_out():
    mean = average_rows([[row("", 0.5), row("CRF", np.nan)], [row("", 1.0), row("CRF", 0.25)]])
    assert [r.mean_iou for r in mean] == [0.75, 0.25]
    assert [r.name for r in mean] == ["Forest", "Forest + CRF"]


def test_averages_refuse_tables_of_different_length():
    with pytest.raises(ValueError, match="shorter"):
        average_rows([[row("", 0.5)], []])


def test_the_baseline_is_the_row_of_the_same_unary_alone():
    rows = rows_of(("Forest", "", 0.7, 0.4), ("Forest", "CRF", 0.8, 0.5), ("Net", "CRF", 0.6, 0.3))
    assert [baseline_of(each, rows) for each in rows] == [None, rows[0], None]


def test_averages_weight_images_and_columns_equally():
    one, two = rows_of(("Forest", "CRF", 0.2, 0.4)), rows_of(("Forest", "CRF", 0.6, np.nan))
    (mean,) = average_rows([one, two])
    assert (mean.mean_iou, mean.boundary_iou) == (pytest.approx(0.4), 0.4)
    assert (mean.fit_seconds, mean.costs_seconds, mean.refine_seconds) == (1.0, 0.25, 0.5)
    assert average_rows([two, one]) == (mean,)
    assert np.isnan(average_rows([two, two])[0].boundary_iou)
