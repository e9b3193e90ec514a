"""The house rules, as tests: which file may import what, and what no file may contain."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hybridseg

PACKAGE = Path(hybridseg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
#: Later folders may import from earlier ones.
FLOW = ["datasets", "features", "networks", "unary", "pairwise", "inference", "report"]
EVERYWHERE = {
    *("base", "costs", "drafts", "recipes", "scene", "sequences", "space", "training"),
    "validation",
    *("datasets", "kernels", "metrics"),
}
TOP = {"demo", "experiment", "cli", "__main__", "__init__"}


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path, *, at_import=False):
    """Names of the modules that a file imports; ``at_import`` leaves out those inside functions."""
    waiting = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: imports are absolute"
            yield node.module or ""
        elif not (at_import and isinstance(node, ast.FunctionDef)):
            waiting.extend(ast.iter_child_nodes(node))


def rooms_imported(path):
    for name in imports_of(path):
        if name.startswith("hybridseg."):
            yield name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_one_way(path):
    room = room_of(path)
    if room in TOP:
        return
    for other in rooms_imported(path):
        if other == room:
            continue
        if room == "validation" and other == "arguments":
            continue
        if room in ("kernels", "validation", "arguments"):
            pytest.fail(f"{relative(path)} imports {other}; it may import nothing of the package")
        if room == "metrics":
            assert other in {"validation", "kernels", "metrics"}, relative(path)
        elif other in FLOW and room in FLOW:
            assert FLOW.index(other) < FLOW.index(room), f"{relative(path)} imports {other}"
        elif room in FLOW:
            assert other in EVERYWHERE, f"{relative(path)} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_torch_stays_in_its_rooms(path):
    if room_of(path) == "networks" or path.name.startswith("deep"):
        return
    for name in imports_of(path, at_import=True):
        assert name.split(".")[0] not in {"torch", "torchvision", "skorch"}, relative(path)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_kernels_compile(path):
    imported = {name.split(".")[0] for name in imports_of(path)}
    if room_of(path) != "kernels":
        assert "numba" not in imported, relative(path)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_sklearn_private_parts_stay_in_base(path):
    private = [
        name
        for name in imports_of(path)
        if name.startswith("sklearn") and any(part.startswith("_") for part in name.split("."))
    ]
    assert not private or room_of(path) == "base", (relative(path), private)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_size_and_name(path):
    assert len(path.read_text().splitlines()) <= 500, f"{relative(path)}: look for the missing name"
    assert path.stem not in {"utils", "core", "common", "helpers", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            statements = sum(isinstance(n, ast.stmt) for n in ast.walk(node)) - 1
            assert statements <= 55, f"{relative(path)}:{node.name} has {statements} statements"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_unfinished(path):
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError|HACK)\b", text), relative(path)
    assert "print(" not in text or room_of(path) in {"cli", "demo"}, relative(path)


def test_every_kernel_has_a_twin():
    """Each public function of kernels/ has a slow one of the same name in tests/oracles/."""
    oracles = "".join(p.read_text() for p in (Path(__file__).parent / "oracles").glob("*.py"))
    for path in sorted((PACKAGE / "kernels").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert re.search(rf"def {node.name}\b", oracles), f"{path.name}: {node.name}"


def test_import_is_light():
    """``import hybridseg`` loads neither torch nor matplotlib, nor compiles anything."""
    code = (
        "import sys, hybridseg; "
        "heavy = {'torch', 'matplotlib', 'numba', 'sklearn', 'skimage'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "from hybridseg import DenseCRF, GraphCut, PixelClassifier; "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_are_documented():
    assert hybridseg.__all__ == sorted(hybridseg.__all__)
    for name in hybridseg.__all__:
        assert getattr(hybridseg, name).__doc__, name


def public_objects():
    for name in hybridseg.__all__:
        thing = getattr(hybridseg, name)
        if hasattr(thing, "__all__"):
            for inner in thing.__all__:
                found = getattr(thing, inner)
                if callable(found):
                    yield f"{name}.{inner}", found
        elif isinstance(thing, type):
            yield name, thing


@pytest.mark.parametrize(("name", "thing"), list(public_objects()))
def test_public_docstrings_are_numpydoc(name, thing):
    text = thing.__doc__ or ""
    assert len(text.splitlines()) >= 5, f"{name} needs a docstring"
    has_parameters = "Parameters\n" in text or "Attributes\n" in text
    assert has_parameters or "list" in text, f"{name}: no Parameters or Attributes section"


def test_comparisons_in_tests_are_asserted():
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value.func)
                bare = {"np.allclose", "np.array_equal", "np.isclose", "torch.allclose"}
                assert called not in bare, f"{path.name}:{node.lineno}: nothing asserts {called}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
                assert any(k.arg == "match" for k in node.keywords), f"{path.name}:{node.lineno}"
