"""Archives with unexpected content are refused before they are read."""

import io
import zipfile

import pytest

from hybridseg import load
from tests.persistence.archives_made import (
    inner_of,
    members,
    with_inner,
    written,
)


def test_compressed_entries_are_refused(saved):
    contents = members(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="entry 'manifest.json' is compressed"):
        load(saved)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in inner_of(written(saved, contents)).items():
            archive.writestr(name, content)
    written(saved, contents | {"model.skops": buffer.getvalue()})
    with pytest.raises(ValueError, match="entry '.*' is compressed"):
        load(saved)


def test_unexpected_entries_are_refused(saved):
    contents = members(saved)
    for name in ("../evil", "/evil", "evil", "networks/0.safetensors", "networks/7.safetensors"):
        written(saved, contents | {name: b"evil"})
        with pytest.raises(ValueError, match="tampered with: it has (the entries|networks that)"):
            load(saved)
    with_inner(written(saved, contents), inner_of(saved) | {"evil.npy": b"evil"})
    with pytest.raises(ValueError, match="no node names the entries"):
        load(saved)


@pytest.mark.parametrize("shape", ["(99999999999,)", "(-5,)", "((((", "(1, 'a')", "(5e9,)", "0"])
def test_arrays_that_ask_for_more_than_there_is(saved, shape):
    inner = inner_of(saved)
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    lie = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    name = next(name for name in inner if name.endswith(".npy"))
    with_inner(saved, inner | {name: lie})
    with pytest.raises(ValueError, match=f"broken.*{name}"):
        load(saved)


def test_deep_nesting_is_refused(saved):
    contents = members(saved)
    text = b'{"hybridseg model": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(ValueError, match="RecursionError"):
        load(written(saved, contents | {"manifest.json": text}))
    node = '{"__loader__":"ListNode","__module__":"builtins","__class__":"list","content":['
    text = '{"protocol":2,' + node[1:] + node * 100_000 + "]}" * 100_000 + "]}"
    with_inner(written(saved, contents), inner_of(saved) | {"schema.json": text.encode()})
    with pytest.raises(ValueError, match="RecursionError"):
        load(saved)
