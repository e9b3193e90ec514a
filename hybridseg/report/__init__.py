"""Reports of an experiment: its records, its HTML page and its text table."""

from hybridseg.report.findings import image_shortfalls, picture_shortfalls, shortfalls, verdict
from hybridseg.report.page import render_html, write_report
from hybridseg.report.records import (
    Experiment,
    ImageResult,
    Picture,
    Row,
    average_rows,
    baseline_of,
)
from hybridseg.report.text import text_table

__all__ = [
    "Experiment",
    "ImageResult",
    "Picture",
    "Row",
    "average_rows",
    "baseline_of",
    "image_shortfalls",
    "picture_shortfalls",
    "render_html",
    "shortfalls",
    "text_table",
    "verdict",
    "write_report",
]
