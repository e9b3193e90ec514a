"""What the documentation shows is what happens: every example is run."""

import doctest
import importlib
import pkgutil
import re
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


def test_estimators_have_examples():
    for name in hybridseg.__all__:
        thing = getattr(hybridseg, name)
        if isinstance(thing, type):
            assert ">>>" in thing.__doc__, f"{name}: show how it is used"


def python_blocks():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{path.name}-{i}")


@pytest.mark.parametrize("block", list(python_blocks()))
def test_blocks_of_the_pages_run(block, tmp_path, monkeypatch):
    if "DeepSegmenter" in block:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {})


def test_changelog_names_the_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in text or f"## {hybridseg.__version__}" in text
