"""Reports of an experiment: its records, its HTML page and its text table."""

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
