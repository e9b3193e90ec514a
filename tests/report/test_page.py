import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hybridseg.report import page as page_module
from hybridseg.report import render_html, write_report

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr", "path"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture
def html(experiment):
    return render_html(experiment)


def test_the_page_is_sound_and_loads_nothing(html):
    page = Page(html)
    assert page.attributes("src")
    assert all(src.startswith("data:image/") for src in page.attributes("src"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?://", html)
    assert all(url.startswith("data:") for url in re.findall(r"url\(([^)]*)", html))
    assert "@import" not in html


def test_every_method_has_a_row_and_a_tile_per_image(html, experiment):
    methods = Page(html).attributes("data-method")
    for row in experiment.rows:
        assert methods.count(row.name) == 1 + len(experiment.images)


def test_scores_are_those_of_the_rows(html, experiment):
    text = "".join(Page(html).text)
    for row in (*experiment.rows, *experiment.images[0].rows, *experiment.images[1].rows):
        assert f"{row.mean_iou:.3f}" in text
        assert f"{row.boundary_iou:.3f}" in text


def test_the_best_is_bold(html):
    assert re.findall(r"<b>(0\.\d+)</b>", html) == ["0.700", "0.400", "0.800", "0.600"]


def test_names_are_escaped(html):
    assert "A title &lt;here&gt;" in html
    assert "fur &lt;soft&gt;" in html
    assert "<here>" not in html


def test_what_loses_is_on_the_page(html):
    text = "".join(Page(html).text)
    assert "Net & <co> + DenseCRF does not beat Net & <co> alone in mean IoU" in text
    assert "Forest + GraphCut: 0.500 against 0.500" in text
    assert "pip install hybridseg[deep]" in text


def test_a_page_without_images_and_hybrids(experiment):
    alone = tuple(row for row in experiment.rows if not row.refiner)
    Page(render_html(replace(experiment, rows=alone, images=(), rows_per_image=False)))


def test_a_report_is_whole_or_absent(experiment, tmp_path, monkeypatch):
    target = tmp_path / "report.html"

    def failing(*names, **options):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="no space"):
            write_report(experiment, target)
    assert list(tmp_path.iterdir()) == []
    target.write_text("old")
    monkeypatch.setattr(page_module, "render_html", failing)
    with pytest.raises(OSError, match="no space"):
        write_report(experiment, target)
    assert target.read_text() == "old"


def test_a_report_replaces_an_old_one(experiment, tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_report(experiment, target) == target
    assert target.read_text(encoding="utf-8") == render_html(experiment)
    assert list(tmp_path.iterdir()) == [target]
