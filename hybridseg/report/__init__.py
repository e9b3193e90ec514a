"""Results to read: records of an experiment, its page, its table."""

from hybridseg.report.findings import picture_shortfalls, shortfalls, verdict
from hybridseg.report.page import render_html, write_report
from hybridseg.report.records import Experiment, Picture, Row, average_rows, baseline_of
from hybridseg.report.text import text_table

__all__ = [
    "Experiment",
    "Picture",
    "Row",
    "average_rows",
    "baseline_of",
    "picture_shortfalls",
    "render_html",
    "shortfalls",
    "text_table",
    "verdict",
    "write_report",
]
