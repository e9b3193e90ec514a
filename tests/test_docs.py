"""Every example in the documentation is run and gives the shown result."""

import doctest
import importlib
import pkgutil
import re
from operator import attrgetter
from pathlib import Path

import pytest

import hybridseg

ROOT = Path(__file__).parents[1]


def modules():
    for found in pkgutil.walk_packages(hybridseg.__path__, "hybridseg."):
        if not found.name.endswith("__main__"):
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_docstring_examples(name):
    if "deep" in name or ".networks" in name:
        pytest.importorskip("torch")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def public_names():
    """The names of all public classes and functions, with those of the public submodules."""
    for name in hybridseg.__all__:
        try:
            thing = getattr(hybridseg, name)
            parts = [f"{name}.{part}" for part in getattr(thing, "__all__", ())] or [name]
            yield from [part for part in parts if callable(attrgetter(part)(hybridseg))]
        except ImportError:  # torch is not installed
            continue


@pytest.mark.parametrize("name", list(public_names()))
def test_public_names_have_examples(name):
    text = attrgetter(name)(hybridseg).__doc__ or ""
    _, title, examples = text.partition("Examples\n")
    assert title, f"{name}: the docstring has no Examples section"
    assert ">>>" in examples, f"{name}: the Examples section shows no code"


def python_blocks():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{path.name}-{i}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_blocks_of_the_pages_run(block, tmp_path, monkeypatch):
    if re.search("DeepSegmenter|PretrainedSegmenter", block):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {})


def test_changelog_names_the_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in text or f"## {hybridseg.__version__}" in text


def test_the_drawing_of_the_rooms_is_up_to_date():
    """``python -m tests.draw_rooms`` draws it again."""
    from tests.draw_rooms import DRAWING, lines

    assert DRAWING.read_text() == "\n".join(lines()) + "\n"
