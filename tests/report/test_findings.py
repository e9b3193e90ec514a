from dataclasses import replace

from hybridseg.report import Row, image_shortfalls, shortfalls, verdict
from hybridseg.report.findings import best_row, change, losing_rows, signed

NAN = float("nan")


def row(refiner, score, unary="Forest"):
    return Row(unary, refiner, score, score / 2, 1.0, 2.0, 3.0)


def test_change_is_against_the_row_of_the_same_unary():
    rows = [row("", 0.5), row("CRF", 0.75), row("", 0.25, "Net"), row("CRF", 0.0, "Net")]
    assert [change(r, rows, "mean_iou") for r in rows] == [None, 0.25, None, -0.25]
    assert change(rows[1], rows, "boundary_iou") == 0.125


def test_equal_and_undefined_scores_are_no_gain():
    rows = [row("", 0.5), row("equal", 0.5), row("worse", 0.4), row("better", 0.6), row("?", NAN)]
    assert [r.refiner for r in losing_rows(rows)] == ["equal", "worse", "?"]
    assert best_row(rows).refiner == "better"


def test_what_loses_is_said_in_words(experiment):
    assert verdict(experiment) == (
        "3 of the 4 hybrid rows beat their unary-only row in mean IoU (mean over 2 images); "
        "1 does not."
    )
    first, second = shortfalls(experiment)
    assert first == (
        "Net & <co> + DenseCRF does not beat Net & <co> alone in mean IoU on average: "
        "0.400 against 0.500 (-0.100)."
    )
    assert "in boundary IoU on average: 0.225 against 0.250" in second
    assert image_shortfalls(experiment) == {
        "cat": ["Net & <co> + DenseCRF: 0.500 against 0.600 (-0.100)"],
        "cup": [
            "Forest + GraphCut: 0.500 against 0.500 (0.000)",
            "Net & <co> + DenseCRF: 0.300 against 0.400 (-0.100)",
        ],
    }


def test_where_all_gain_nothing_is_reproached(experiment):
    rows = tuple(
        replace(r, mean_iou=0.9, boundary_iou=0.9) if r.refiner else r for r in experiment.rows
    )
    better = replace(experiment, rows=rows, images=())
    assert verdict(better).startswith("Every one of the 4 hybrid rows beats")
    assert shortfalls(better) == []
    assert image_shortfalls(better) == {}


def test_signs_are_written_out():
    assert [signed(v) for v in (0.0314, -0.0314, 0.0, -0.0001, None)] == [
        "+0.031",
        "-0.031",
        "0.000",
        "0.000",
        "",
    ]
