"""The house rules, as tests: which file may import what, and what no file may contain."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridseg

PACKAGE = Path(hybridseg.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))

#: All rooms, from the ground up: a file imports from its own room and from those before it. A room
#: within a room is named in full; the rest of `deep` are the files beside those two folders.
ROOMS = (
    *("version", "kernels", "arguments", "validation", "space", "files", "metrics"),
    *("scene", "base", "datasets", "features", "losses", "networks", "unary"),
    *("pairwise", "learning", "inference"),
    *("deep.prediction", "deep.training", "deep", "deep.adaptation", "search"),
    *("persistence", "report", "demo", "cli", "__main__", "__init__"),
)
#: Rooms that may hold more files than others, and why: one architecture a file.
LARGE = {"networks"}
#: Rooms whose files may import torch as they are imported.
TORCH = ("losses", "networks", "deep")
#: Names that a room offers besides its own, from a later room that is imported when asked.
FORWARDED = {"hybridseg.unary": "hybridseg.deep"}


def name_of(path: Path, root: Path = ROOT) -> str:
    """The module's full name; a package's is that of its folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in (*MODULES, *BENCHMARKS)}


def room_of(name: str) -> str:
    """The room of a module of the package: the longest one that its name begins with."""
    inside = name.partition(".")[2]
    if not inside:
        return "__init__"
    found = [room for room in ROOMS if inside == room or inside.startswith(f"{room}.")]
    assert found, f"{name} stands in no room: add it to ROOMS, or put it where it belongs"
    return max(found, key=len)


def imported_names(tree: ast.Module, *, at_import: bool = False) -> Iterator[str]:
    """Full names of what a file imports, also as text; ``at_import``: not inside functions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            told = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
            yield from (name for name in told if isinstance(name, str))
        if not (at_import and isinstance(node, ast.FunctionDef)):
            waiting.extend(ast.iter_child_nodes(node))


def modules_imported(path: Path) -> Iterator[str]:
    """Modules of the package and of the benchmarks that a file imports, wherever in it."""
    for name in imported_names(ast.parse(path.read_text())):
        if name in NAMES:
            yield name
        elif name.rpartition(".")[0] in NAMES:
            yield name.rpartition(".")[0]


def wrong_imports(path: Path) -> list[str]:
    """What a file of the package imports from a later room."""
    name = name_of(path)
    here = ROOMS.index(room_of(name))
    return [
        other
        for other in modules_imported(path)
        if not other.startswith("hybridseg")
        or (ROOMS.index(room_of(other)) > here and FORWARDED.get(name) != other)
    ]


def circles(paths: list[Path]) -> list[list[str]]:
    """Groups of files that import each other, in some number of steps (Tarjan 1972)."""
    edges = {name_of(path): sorted(set(modules_imported(path))) for path in paths}
    for name, other in FORWARDED.items():  # looked up when somebody asks
        if name in edges:
            edges[name] = [found for found in edges[name] if found != other]
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other == name or other not in edges:
                continue
            if other not in order:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for name in edges:
        if name not in order:
            visit(name)
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=relative)


@each_module
def test_imports_point_one_way(path):
    assert not wrong_imports(path), f"{relative(path)} imports from rooms above its own"


def test_no_files_import_each_other():
    assert not circles([*MODULES, *BENCHMARKS])


@pytest.fixture
def copied_house(tmp_path, monkeypatch):
    """The package's files in another place, where wrong ones can be planted."""
    for path in MODULES:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(name_of, "__defaults__", (tmp_path,))
    return tmp_path / "hybridseg"


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("scene/costs.py", "from hybridseg.unary import pixels"),
        ("scene/costs.py", "def late():\n    from hybridseg.unary.pixels import PixelClassifier"),
        ("kernels/sparse/coarsening.py", "import hybridseg.validation"),
        ("base.py", "import importlib\nimportlib.import_module('hybridseg.deep.segmenter')"),
        ("version.py", "import benchmarks.files"),
        ("deep/training/loop.py", "from hybridseg.deep import segmenter"),
    ],
)
def test_a_planted_import_is_found(copied_house, place, line):
    path = copied_house / place
    assert not wrong_imports(path)
    path.write_text(f"{path.read_text()}\n{line}\n")
    assert wrong_imports(path)


def test_a_planted_circle_is_found(copied_house):
    paths = sorted(copied_house.rglob("*.py"))
    assert not circles(paths)
    step = copied_house / "features" / "gaussians.py"
    step.write_text(f"{step.read_text()}\ndef late():\n    from hybridseg.features import etps\n")
    (group,) = circles(paths)
    assert {"hybridseg.features.gaussians", "hybridseg.features.etps"} <= set(group)


def test_rooms_are_neither_empty_nor_full():
    for folder in {path.parent for path in (*MODULES, *BENCHMARKS)}:
        n_files = len(list(folder.glob("*.py")))
        assert n_files <= 15 or folder.name in LARGE, f"{relative(folder)} has {n_files} files"
    inside = {room_of(name_of(path)) for path in MODULES}
    assert inside == set(ROOMS), "ROOMS names a room that holds nothing"


@each_module
def test_torch_stays_in_its_rooms(path):
    if room_of(name_of(path)).split(".")[0] in TORCH:
        return
    for name in imported_names(ast.parse(path.read_text()), at_import=True):
        top = name.split(".")[0]
        assert top not in {"torch", "torchvision", "skorch", "safetensors"}, relative(path)


@each_module
def test_only_kernels_compile(path):
    imported = {name.split(".")[0] for name in imported_names(ast.parse(path.read_text()))}
    if room_of(name_of(path)) != "kernels":
        assert not imported & {"numba", "llvmlite"}, relative(path)


PRIVATE = re.compile(r"\bsklearn(\.\w+)*\._\w+")


def private_parts(text: str) -> set[str]:
    """Private parts of scikit-learn that a file reaches for: imported, or spelled in text."""
    tree = ast.parse(text)
    documented = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    spelled = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented
    ]
    return {name for name in [*imported_names(tree), *spelled] if PRIVATE.search(name)}


@each_module
def test_sklearn_private_parts_stay_in_base(path):
    found = private_parts(path.read_text())
    assert not found or room_of(name_of(path)) == "base", (relative(path), found)


def test_private_parts_are_found_however_they_are_spelled():
    assert private_parts("from sklearn.utils._tags import Tags") == {"sklearn.utils._tags.Tags"}
    assert private_parts("import sklearn.tree._tree") == {"sklearn.tree._tree"}
    assert private_parts("kind = 'sklearn.tree._tree.Tree'") == {"sklearn.tree._tree.Tree"}
    assert not private_parts('"""As sklearn.tree._tree has it."""\nfrom sklearn.tree import x')


@each_module
def test_size_and_name(path):
    assert len(path.read_text().splitlines()) <= 500, f"{relative(path)}: look for the missing name"
    assert path.stem not in {"utils", "core", "common", "helpers", "misc"}


@each_module
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            statements = sum(isinstance(n, ast.stmt) for n in ast.walk(node)) - 1
            assert statements <= 55, f"{relative(path)}:{node.name} has {statements} statements"


@each_module
def test_nothing_unfinished(path):
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError|HACK)\b", text), relative(path)
    called = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    prints = any(isinstance(function, ast.Name) and function.id == "print" for function in called)
    assert not prints or room_of(name_of(path)) in {"cli", "demo"}, relative(path)


#: Modules without a test file of their own: a door, a constant, and names of earlier versions.
UNTESTED = {"hybridseg.__main__", "hybridseg.version", "hybridseg.networks.losses"}


def file_with_tests_of(path: Path) -> str:
    """Where the tests of a module are: in the same folder of tests, under its name."""
    place = path.relative_to(PACKAGE)
    return (Path("tests") / place.parent / f"test_{place.stem.strip('_')}.py").as_posix()


@each_module
def test_every_module_has_a_test_of_its_name(path):
    """All architectures share one, as they obey the same laws."""
    name = name_of(path)
    if path.stem == "__init__" or name in UNTESTED or (ROOT / file_with_tests_of(path)).exists():
        return
    networks = {}
    if room_of(name) == "networks":
        networks = pytest.importorskip("hybridseg.networks").NETWORKS
    architectures = {network.__module__ for network in networks.values()}
    assert name in architectures, (
        f"{relative(path)} has no tests: expected {file_with_tests_of(path)}"
    )
    assert (ROOT / "tests" / "networks" / "test_architectures.py").exists()


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
    has_parameters = any(f"{name}\n" in text for name in ("Parameters", "Attributes", "Methods"))
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
