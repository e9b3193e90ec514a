"""Every kernel has a slow twin of the same name, and a test that compares the two.

The rule holds in all rooms of ``kernels/`` but ``vectors/``, whose functions are instructions that
the kernels are made of (their tests lie in ``tests/kernels/vectors/``):

* A function without an underscore that is compiled, or runs what is compiled, is a *kernel*. Its
  twin lies in the oracle of its own module, ``tests/oracles/<room>/<module>.py``, and one test in
  ``tests/kernels/<room>/test_<module>.py`` names both of them.
* A compiled function with an underscore is a *part* of the kernels of its module that call it,
  directly or through other parts. Their twins cover it, so there must be at least one.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import hybridseg

PACKAGE = Path(hybridseg.__file__).parent / "kernels"
TESTS = Path(__file__).parent
ORACLES = TESTS.parent / "oracles"
COMPILED = {"kernel", "parallel_kernel", "inner_kernel", "inlined_kernel", "instruction"}
COMPILED |= {"intrinsic"}
Function = ast.FunctionDef
#: A module and the name of one of its functions.
Reference = tuple[str, str]


def modules(package: Path) -> list[str]:
    """``room.module`` of each file in the rooms."""
    paths = sorted(p for p in package.glob("*/*.py") if p.stem != "__init__")
    return [f"{p.parent.name}.{p.stem}" for p in paths if p.parent.name != "vectors"]


def path_of(root: Path, module: str, prefix: str = "") -> Path:
    room, name = module.split(".")
    return root / room / f"{prefix}{name}.py"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text() if path.exists() else "")


def functions(tree: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in tree.body if isinstance(node, Function)}


def is_compiled(function: Function) -> bool:
    """Whether a decorator with or without arguments compiles the function."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(isinstance(d, ast.Name) and d.id in COMPILED for d in decorators)


def imported(tree: ast.Module, package: str) -> dict[str, Reference]:
    """The module and function of each name that a file imports from the rooms of ``package``."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package + "."):
            room = node.module.removeprefix(package + ".")
            for alias in node.names:
                found[alias.asname or alias.name] = (room, alias.name)
    return found


def names_in(node: ast.AST) -> set[str]:
    """The names that the nodes read, and the names of arguments, which may be fixtures."""
    every = ast.walk(node)
    return {n.id if isinstance(n, ast.Name) else n.arg for n in every if hasattr(n, "arg") or
            isinstance(n, ast.Name)} - {None}  # fmt: skip


def reached(start: str, nodes: dict[str, ast.AST]) -> set[str]:
    """The names of ``nodes`` that a node reads, directly or through other nodes."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(names_in(nodes[name]) & nodes.keys())
    return seen


def kernels_of(tree: ast.Module) -> list[str]:
    own, elsewhere = functions(tree), imported(tree, "hybridseg.kernels")
    others = {
        name
        for name, (room, original) in elsewhere.items()
        if not room.startswith("vectors") and original.islower()
    }

    def runs_compiled(name: str) -> bool:
        return any(is_compiled(own[n]) or names_in(own[n]) & others for n in reached(name, own))

    return [name for name in own if not name.startswith("_") and runs_compiled(name)]


def definitions(tree: ast.Module) -> dict[str, ast.AST]:
    """The definitions at the top level of a file, by name."""
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                found.update((n.id, node) for n in ast.walk(target) if isinstance(n, ast.Name))
    return found


def references(tree: ast.Module, package: str, nodes: list[ast.AST]) -> set[Reference]:
    """The functions of the rooms of ``package`` whose names occur in the nodes."""
    names, found = imported(tree, package), set()
    for node in (n for top in nodes for n in ast.walk(top)):
        if isinstance(node, ast.Name) and node.id in names:
            found.add(names[node.id])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            room, module = names.get(node.value.id, ("", ""))
            found.add((f"{room}.{module}", node.attr))
    return found


@cache
def compared(module: str) -> set[str]:
    """The names for which a test of a module calls both the kernel and the twin."""
    tree = parsed(path_of(TESTS, module, "test_"))
    nodes, found = definitions(tree), set()
    for test in (name for name in nodes if name.startswith("test_")):
        used = [nodes[name] for name in reached(test, nodes)]
        ours, slow = (
            {name for where, name in references(tree, package, used) if where == module}
            for package in ("hybridseg.kernels", "tests.oracles")
        )
        found |= ours & slow
    return found


KERNELS = [
    (module, name)
    for module in modules(PACKAGE)
    for name in kernels_of(parsed(path_of(PACKAGE, module)))
]


@pytest.mark.parametrize(("module", "name"), KERNELS, ids=lambda value: value)
def test_a_kernel_has_a_twin_that_a_test_calls(module, name):
    twins = path_of(ORACLES, module)
    assert name in definitions(parsed(twins)), f"write the twin of {module}.{name} in {twins}"
    test = path_of(TESTS, module, "test_")
    assert name in compared(module), f"no test in {test} calls {name} and its twin"


@pytest.mark.parametrize("module", modules(PACKAGE))
def test_a_part_belongs_to_a_kernel_of_its_module(module):
    tree = parsed(path_of(PACKAGE, module))
    own = functions(tree)
    covered = set().union(*(reached(name, own) for name in own if not name.startswith("_")))
    parts = {name for name in own if name.startswith("_") and is_compiled(own[name])}
    assert parts <= covered, f"{module}: no kernel of this module calls {parts - covered}"


@pytest.mark.parametrize("module", modules(ORACLES))
def test_an_oracle_belongs_to_a_module(module):
    assert path_of(PACKAGE, module).exists(), f"the twins of {module} are of no kernels"
