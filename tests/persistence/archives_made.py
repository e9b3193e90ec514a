"""Model files that tests write, read and change."""

import io
import json
import zipfile

import numpy as np


def path_for(directory):
    return directory / "model.hybridseg"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def rewritten(path, change):
    """Write the file again with ``change(manifest)``."""
    contents = members(path)
    manifest = json.loads(contents["manifest.json"])
    change(manifest)
    return written(path, contents | {"manifest.json": json.dumps(manifest)})


def with_schema(path, change):
    """Write the file again with ``change(schema)`` of the schema that skops reads."""
    contents = members(path)
    inner = members(io.BytesIO(contents["model.skops"]))
    schema = json.loads(inner["schema.json"])
    schema = change(schema) or schema
    buffer = written(io.BytesIO(), inner | {"schema.json": json.dumps(schema)})
    return written(path, contents | {"model.skops": buffer.getvalue()})


def inner_of(path):
    return members(io.BytesIO(members(path)["model.skops"]))


def with_inner(path, inner):
    buffer = written(io.BytesIO(), inner)
    return written(path, members(path) | {"model.skops": buffer.getvalue()})


def as_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_arrays(path, change):
    """Write the file again with ``change(array)`` of each array; None keeps the array."""
    inner = inner_of(path)
    for name in [name for name in inner if name.endswith(".npy")]:
        found = change(np.load(io.BytesIO(inner[name])))
        if found is not None:
            inner[name] = as_npy(found)
    return with_inner(path, inner)
