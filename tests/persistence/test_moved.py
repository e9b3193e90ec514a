"""Models that were saved before modules moved load with equal parameters and predictions."""

import io
import json
import lzma
import re
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import sklearn

from hybridseg import load
from tests.persistence.archives_made import members, rewritten, with_schema

MODELS = Path(__file__).parents[1] / "data" / "saved_models"
NAMES = sorted(path.name.split(".")[0] for path in MODELS.glob("*.hybridseg.xz"))
#: The files were written with other versions of scikit-learn, torch and this package.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the model was saved with:UserWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning"),
]
#: Functions are loaded only if their names in the file are trusted.
TRUSTED = {
    "functions": [
        "hybridseg.features.etps.etps",
        "hybridseg.features.felzenszwalb.felzenszwalb",
        "hybridseg.features.superpixels.slic",
    ]
}


def unpacked(name, directory):
    """The saved file, decompressed; most of it is indented JSON."""
    packed = MODELS / f"{name}.hybridseg.xz"
    path = directory / f"{name}.hybridseg"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


#: Probabilities are stored as integers in units of 1 / UNIT.
UNIT = 65535


def images_for(name):
    """The input of a model: one image, or both images as the planes of a volume."""
    with np.load(MODELS / "images.npz", allow_pickle=False) as archive:
        X = archive["images"]
    return [X] if "volume" in name else [X[0]]


def expected_of(name, model):
    """The expected content: a model's parameters as text and, if it is fitted, its predictions."""
    found = {"parameters": np.array(json.dumps(told(model), sort_keys=True, indent=1))}
    if "unfitted" not in name:
        found["labels"] = np.asarray(model.predict(images_for(name))[0])
        if hasattr(model, "predict_proba"):
            proba = np.asarray(model.predict_proba(images_for(name))[0])
            found["proba"] = np.round(UNIT * proba).astype(np.uint16)
    return found


def told(value):
    """An object as values of JSON, without the names of modules."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, type | FunctionType) or kind.__name__ == "builtin_function_or_method":
        return value.__name__
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        few = value.size <= 20
        content = value.tolist() if few else zlib.crc32(value.tobytes())
        return [str(value.dtype), value.shape, content]
    if isinstance(value, partial):
        return ["partial", told(value.func), told(value.args), told(value.keywords)]
    if isinstance(value, dict):
        return [[told(key), told(inner)] for key, inner in value.items()]
    if isinstance(value, list | tuple | range | np.ndarray):
        return [kind.__name__, *map(told, value)]
    if hasattr(value, "module_"):  # a trained net
        return ["net", len(value.history), told(value.module_)]
    if hasattr(value, "state_dict"):
        content = b"".join(part.numpy().tobytes() for part in value.state_dict().values())
        return [kind.__name__, zlib.crc32(content) if content else repr(value)]
    ours = kind.__module__.split(".")[0] == "hybridseg"  # for other classes only the parameters
    held = {k: told(v) for k, v in vars(value).items() if ours or not k.endswith("_")}
    return [kind.__name__, held]


def needs_networks():
    for module in ("torch", "torchvision", "skorch", "safetensors"):
        pytest.importorskip(module)


def loaded(name, path):
    if name.startswith("deep"):
        needs_networks()
    try:
        return load(path, trusted=TRUSTED.get(name, ()))
    except ValueError as error:
        written = json.loads(members(path)["manifest.json"])["versions"]["scikit-learn"]
        refused = re.search("with the versions installed|fails to predict", str(error))
        if refused and written.split(".")[:2] != sklearn.__version__.split(".")[:2]:
            pytest.skip(f"scikit-learn {sklearn.__version__} reads no model of {written}: {error}")
        raise


@pytest.mark.parametrize("name", NAMES)
def test_predicts_as_it_did(tmp_path, name):
    found = expected_of(name, loaded(name, unpacked(name, tmp_path)))
    with np.load(MODELS / f"{name}.npz", allow_pickle=False) as expected:
        assert found.keys() == set(expected.files)
        lines = (str(kept["parameters"]).splitlines() for kept in (found, expected))
        assert next(lines) == next(lines)
        if "proba" in found:
            before = expected["proba"].astype(float)
            assert abs(found["proba"] - before).max() <= 1e-4 * UNIT
        if "labels" in found:
            clear = np.ones(expected["labels"].shape, bool)
            if "proba" in found:  # another processor may break ties differently
                least, most = np.sort(before, axis=-1)[..., -2:].T
                clear = (most - least > 2e-4 * UNIT).T
                assert clear.mean() > 0.3
            np.testing.assert_array_equal(found["labels"][clear], expected["labels"][clear])


# -- names ---------------------------------------------------------------------------------------


def names_in(path):
    """The dotted names of this package in a file's schema and manifest."""
    entries = members(path)
    schema = json.loads(members(io.BytesIO(entries["model.skops"]))["schema.json"])
    found = {
        name
        for text in strings_in(json.loads(entries["manifest.json"]))
        for name in re.findall(r"\bhybridseg(?:\.\w+)+", text)
    }
    return found | {name for name in made_in(schema) if name.startswith("hybridseg.")}


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_in(inner)


def made_in(node):
    """The full names of all classes that a schema creates."""
    if isinstance(node, dict):
        if isinstance(node.get("__class__"), str):
            yield f"{node['__module__']}.{node['__class__']}"
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from made_in(inner)


def test_the_files_hold_earlier_names(tmp_path):
    """``pytest -s`` prints the names, each with the number of files that hold it."""
    held = Counter(name for model in NAMES for name in names_in(unpacked(model, tmp_path)))
    print("", *(f"{held[name]:4} {name}" for name in sorted(held)), sep="\n")
    assert len(held) > 60
    assert {"hybridseg.unary.pixels.PixelClassifier", "hybridseg.networks.unet.UNet"} <= set(held)


@pytest.mark.parametrize("name", ["unary.pixels.NoSuchFeatures", "unary.none.PixelFeatures"])
def test_names_that_never_were_are_refused(tmp_path, name):
    module, _, kind = f"hybridseg.{name}".rpartition(".")

    def plant(schema):
        features = schema["content"]["content"]["features_"]
        assert features["__class__"] == "PixelFeatures"
        features |= {"__class__": kind, "__module__": module}

    path = with_schema(unpacked("pixels", tmp_path), plant)
    with pytest.raises(TypeError, match=rf"holds {module}\.{kind}.*load does not trust"):
        load(path)


def test_networks_that_never_were_are_refused(tmp_path):
    needs_networks()
    path = unpacked("deep_pretrained", tmp_path)

    def plant(manifest):
        manifest["networks"][0]["made"]["name"] = "hybridseg.networks.unet.NoSuchNet"

    with pytest.raises(ValueError, match="NoSuchNet"):
        load(rewritten(path, plant))
