"""The record of a search as text, HTML, frame and drawing."""

import pytest

from hybridseg.search.leaderboard import Leaderboard, LeaderboardRow

BOARD = Leaderboard(
    (
        LeaderboardRow("a", "CRF", 2, 9, 0.75, (0.7, 0.8), None, None, 3.25, "best"),
        LeaderboardRow("a", "none", 2, 9, 0.7, (0.6, 0.8), -0.05, (-0.07, -0.01), 2.0, "scored"),
        LeaderboardRow("b", "none", 1, 2, 0.5, None, -0.25, None, 1.0, "eliminated"),
        LeaderboardRow(
            "<c>", "none", 0, 0, None, None, None, None, 0.5, "failed: ValueError: bad\nmore"
        ),
    ),
    "mean_iou",
    "images",
)


def test_text():
    lines = str(BOARD).splitlines()
    assert len(lines) == 6
    assert lines[1].split() == [
        "a",
        "CRF",
        "2",
        "9",
        "75.00",
        "70.0",
        "to",
        "80.0",
        "-",
        "3.2",
        "best",
    ]
    assert "-5.00 (-7.0 to -1.0)" in lines[2]
    assert lines[3].split()[4:7] == ["50.00", "-", "-25.00"]
    assert lines[4].endswith("failed: ValueError: bad")
    assert "mean_iou" in lines[5]
    assert len(BOARD) == len(list(BOARD)) == 4


def test_html_is_escaped():
    text = BOARD._repr_html_()
    assert text.count("<tr>") == 5
    assert "&lt;c&gt;" in text
    assert "<c>" not in text


def test_frame():
    pandas = pytest.importorskip("pandas")
    frame = BOARD.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.shape == (4, 12)
    assert frame.loc[0, ["low", "high"]].tolist() == [0.7, 0.8]
    assert frame.loc[1, "difference_low"] == -0.07
    assert frame["score"].isna().tolist() == [False, False, False, True]


def test_plot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    axes = BOARD.plot()
    assert len(axes.get_yticks()) == 3  # those with a score
    pyplot.close(axes.figure)
