"""A file creates only types that models need, and calls no function."""

import pytest

from hybridseg import load
from tests.persistence.archives_made import with_schema


def node(loader, module, name, **content):
    return {"__loader__": loader, "__module__": module, "__class__": name} | content


TEXT = node("JsonNode", "builtins", "str", content='"exploded"')


ONE = {"content": node("TupleNode", "builtins", "tuple", content=[TEXT])}


EVIL = {
    "call": node("ConstructorFromReduceNode", "os", "mkdir", **ONE),
    "load": node("ConstructorFromReduceNode", "numpy", "load", **ONE),
    "function": node("FunctionNode", "os", "mkdir"),
    "ours": node("FunctionNode", "hybridseg.cli", "main"),
    "main": node("ObjectNode", "hybridseg.__main__", "main"),
    "method": node("MethodNode", "builtins", "str", content={"func": "upper", "obj": TEXT}),
    "operator": node("OperatorFuncNode", "operator", "methodcaller", attrs=TEXT),
    "list": node("ListNode", "os", "mkdir", content=[TEXT]),
    "keys": node(
        "DictNode",
        "builtins",
        "dict",
        content={"exploded": TEXT},
        key_types=node("ListNode", "builtins", "list", content=[node("TypeNode", "os", "mkdir")]),
    ),
    "class": node("TypeNode", "subprocess", "Popen"),
    "tree": node("ObjectNode", "sklearn.utils._testing", "TempMemmap"),
}


@pytest.mark.parametrize("name", EVIL)
def test_other_types_are_refused(saved, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    def change(schema):
        schema["content"]["content"]["evil"] = EVIL[name]
        schema["content"]["key_types"]["content"].append(node("TypeNode", "builtins", "str"))

    with_schema(saved, change)
    with pytest.raises(TypeError, match="holds .*, which hybridseg.load does not trust"):
        load(saved)
    assert not (tmp_path / "exploded").exists()
