"""The table for the terminal."""

from dataclasses import replace

import numpy as np

from hybridseg.report.text import text_table
from tests.report.conftest import rows_of


def test_the_text_table_holds_every_row_in_aligned_columns(experiment):
    lines = text_table(experiment).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(experiment.rows)
    assert "0.700*" in lines[3]
    assert "+0.100" in lines[3]
    assert "-0.100" in lines[6]


def test_undefined_scores_are_said_and_the_best_of_each_column_is_marked_once(experiment):
    rows = rows_of(("A", "", 0.25, np.nan), ("A", "CRF", 0.5, 0.125), ("B", "", np.nan, 0.25))
    lines = text_table(replace(experiment, rows=rows)).splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["A", "0.250", "n/a"],
        ["+", "CRF", "0.500*"],
        ["B", "n/a", "0.250*"],
    ]
    assert sum(line.count("*") for line in lines) == 2
    assert lines[3].split()[-4:] == ["1.00", "0.25", "0.50", "1.75"]
