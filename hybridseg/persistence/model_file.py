"""Models in files of data without code: skops holds estimators, safetensors the weights.

A file is a zip archive of ``manifest.json`` (versions, descriptions of the networks),
``model.skops`` (the estimators, with a :class:`StoredNetwork` in place of each network) and
``networks/*.safetensors`` (the weights).
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from hybridseg.persistence.archives import read_archive, write_archive
from hybridseg.persistence.fitted_state import check_parameters, check_state, predicts_a_row
from hybridseg.persistence.moved import estimators_now, manifest_now, name_now
from hybridseg.persistence.schema import check_contents
from hybridseg.validation import warn_caller
from hybridseg.version import __version__

#: The format that is written. In the first format, classes have the names of older modules.
_FORMAT = 2
_MODEL, _MANIFEST = "model.skops", "manifest.json"


class StoredNetwork:
    """A placeholder for a network among the estimators of a file.

    Attributes
    ----------
    index : int
        The position of the network in the manifest's list.
    """

    def __init__(self, index: int) -> None:
        self.index = index


def save(model: Any, path: str | os.PathLike[str]) -> Path:
    """Write a model to a file, from which :func:`load` restores it.

    Parameters
    ----------
    model : estimator
        Any estimator of this package or of scikit-learn, fitted or not: a segmenter, a refiner, a
        Pipeline or a GridSearchCV (often its ``best_estimator_`` is enough).
    path : path
        The file is written atomically: a temporary file is flushed to the disk and then renamed.
        Temporary files of killed calls are removed.

    Returns
    -------
    Path
        The path of the file.

    Raises
    ------
    TypeError
        ``model`` is not an estimator, holds something that cannot be written without pickle, such
        as a lambda, or is a search over networks (save its ``best_estimator_``).

    Warns
    -----
    UserWarning
        The file does not hold all of the model, so :func:`load` needs an argument: ``network=`` for
        a network of another package, for a network that was changed after it was made and for a
        factory of your own; ``trusted=`` for a class or function that is not on the allow-list.

    Notes
    -----
    Networks of this package are restored completely, also within :func:`hybridseg.networks.adapt`.
    A network keeps its architecture, its weights and its history, but not the state of its
    optimizer. It can be trained further, but a run cannot be resumed within an epoch
    (``DeepSegmenter(checkpoint=...)`` can do that). The weights of pretrained features are not
    stored: :func:`load` finds them by name.

    Examples
    --------
    >>> import tempfile, hybridseg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = hybridseg.save(hybridseg.DenseCRF(spatial_weight=5.0), folder + "/crf.hybridseg")
    ...     hybridseg.load(path)
    DenseCRF(spatial_weight=5.0)
    """
    if not isinstance(model, BaseEstimator):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an estimator, such as "
            f"make_pipeline(PixelClassifier(), DenseCRF())."
        )
    skops_io = _skops()
    bare, networks = _without_networks(model)
    if any(_is_network(value) for _, value in inside(bare)):  # left in masked arrays
        raise TypeError(
            f"model is a {type(model).__name__} whose results hold networks, which cannot be "
            f"written there: save its best_estimator_."
        )
    try:
        estimators = skops_io.dumps(bare)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"model holds what cannot be written without pickle ({error}); parameters may be "
            f"numbers, text, arrays, estimators, networks, and classes and functions that can be "
            f"imported."
        ) from error
    manifest: dict[str, Any] = {
        "hybridseg model": _FORMAT,
        "versions": _versions(),
        "predicts": _predicts_a_row(estimators, bare),
    }
    weights: list[bytes] = []
    if networks:
        from hybridseg.deep import stored as deep_persistence

        described = [deep_persistence.describe(network) for network in networks]
        manifest["networks"] = [description for description, _ in described]
        weights = [content for _, content in described]
    _warn_of_what_load_needs(estimators, manifest)
    entries = {_MANIFEST: json.dumps(manifest, indent=1).encode(), _MODEL: estimators}
    entries |= {_weights_name(index): content for index, content in enumerate(weights)}
    target = Path(path)
    write_archive(target, entries)
    return target


def load(path: str | os.PathLike[str], *, network: Any = None, trusted: Sequence[str] = ()) -> Any:
    """Load a model that :func:`save` wrote; no code in the file is run.

    Parameters
    ----------
    path : path
        The file.
    network : torch.nn.Module, or callable, optional
        Needed if the model was saved with a module, class or function of your own: the same module,
        class or function. The weights of the file are loaded into a copy of a module. A class or
        function is called with ``in_channels`` and ``n_classes``, as DeepSegmenter calls it; for
        other estimators, if it does not take these, without arguments. A DeepSegmenter keeps it as
        its parameter.
    trusted : sequence of str, default=()
        Full names ("package.module.Name") of further classes and functions for the allow-list: the
        file may import them and make them. Name only those whose code you know, because a file can
        make them with any content.

    Returns
    -------
    estimator
        The model as it was saved. Networks are on the device that they were on, or on the CPU if
        there is no such device.

    Raises
    ------
    OSError
        The file does not exist, or cannot be read.
    ValueError
        The file was not written by :func:`save`, is broken, or has been tampered with. All other
        faults of a file raise this error too. The message names the file and the fault.
    TypeError
        The file holds a type that is not on the allow-list, or needs ``network=``; the message
        names the type or the network.

    Warns
    -----
    UserWarning
        The file was written with another version of hybridseg, scikit-learn or torch, so results
        may differ.

    Notes
    -----
    The allow-list holds estimators and parameter objects of this package and of scikit-learn,
    values of NumPy and SciPy, optimizers and losses of torch, and callbacks of skorch. Numbers that
    compiled code uses without checks are checked: nodes of trees, indices, counts and shapes. The
    memory for a file is bounded by a multiple of its size: its entries are not compressed, and a
    network is compared with the weights in the file before its memory is allocated.

    Examples
    --------
    >>> import tempfile
    >>> import hybridseg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = hybridseg.save(hybridseg.GraphCut(weight=4.0), folder + "/cut.hybridseg")
    ...     model = hybridseg.load(path)
    >>> model.weight
    4.0
    """
    if isinstance(trusted, str):
        raise TypeError(
            f"trusted={trusted!r} is text; expected a list of full names, such as "
            f"['package.module.Name']."
        )
    skops_io = _skops()
    content = Path(path).read_bytes()
    with _naming(path):
        manifest, estimators, weights = _entries(content)
        if manifest["hybridseg model"] == 1:
            manifest, estimators = manifest_now(manifest), estimators_now(estimators)
            trusted = [name_now(name) for name in trusted]
        described = manifest.get("networks", [])
        _warn_of_versions(manifest["versions"], len(described))
        names = check_contents(estimators, trusted)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InconsistentVersionWarning)  # has been warned of
                bare = skops_io.loads(estimators, trusted=names)
        except Exception as error:  # __setstate__ of any class on the allow-list
            raise ValueError(
                f"its estimators cannot be read with the versions installed, or it has been "
                f"tampered with ({error!r}); it was written with {manifest['versions']}"
            ) from error
        parts = list(inside(bare))
        check_state(parts)
        if manifest.get("predicts") is True and not predicts_a_row(parts):
            raise ValueError("an estimator in it fails to predict: it has been tampered with.")
        model = _with_networks(bare, described, weights, network, trusted)
        check_parameters(list(inside(model)))
        return model


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every error; errors of other types become a ValueError."""
    name = os.fspath(path)
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name!r}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{name!r} cannot be read with the versions installed, or has been tampered with "
            f"({error!r})."
        ) from error


def _entries(content: bytes) -> tuple[dict[str, Any], bytes, list[bytes]]:
    """Return the manifest of a file, its estimators and the weights of its networks."""
    try:
        entries = read_archive(content)
        manifest = json.loads(entries.pop(_MANIFEST))
        estimators = entries.pop(_MODEL)
        version = manifest["hybridseg model"]
        described = manifest.setdefault("networks", [])
        versions = manifest.setdefault("versions", {})
        if not isinstance(described, list) or not isinstance(versions, dict):
            raise ValueError("its manifest does not have the expected types")
    except Exception as error:  # broken files raise errors of every kind
        raise ValueError(
            f"the file is not a model that hybridseg.save wrote, or it is broken ({error!r})."
        ) from error
    if version not in (1, _FORMAT):
        raise ValueError(
            f"the file has the format {version!r}; this hybridseg reads 1 and {_FORMAT}: install "
            f"the version that wrote it, {versions}."
        )
    names = [_weights_name(index) for index in range(len(entries))]
    if unknown := sorted(entries.keys() - set(names)):
        raise ValueError(f"the file has been tampered with: it has the entries {unknown}.")
    return manifest, estimators, [entries[name] for name in names]


def _warn_of_what_load_needs(estimators: bytes, manifest: dict[str, Any]) -> None:
    """Warn of parts that a file cannot hold and that :func:`load` needs as arguments."""
    for described in manifest.get("networks", []):
        if described["kind"] != "net" and "made" not in described:
            warn_caller(
                f"a file cannot hold the network {described['name']}, only its weights; to load "
                f"the model, pass the network: hybridseg.load(path, network=...).",
            )
    with contextlib.suppress(ValueError):  # a broken model: load says what is broken
        try:
            check_contents(estimators, ())
        except TypeError as error:
            warn_caller(f"to load this file, load needs trusted=: {error}")


def _predicts_a_row(estimators: bytes, bare: Any) -> bool:
    """Return whether a model passes the checks and predicts; without them it could crash."""
    parts = list(inside(bare))
    try:
        check_contents(estimators, ())
        check_state(parts)
    except (TypeError, ValueError):
        return False
    return predicts_a_row(parts)


def inside(root: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over all objects within an object, each once, as (owner, value), the owner first.

    This looks into containers, arrays of objects and attributes, but not into networks and losses.
    """
    waiting, seen = [(None, root)], set()
    while waiting:
        owner, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield owner, value
        holder = value if hasattr(value, "__dict__") else owner
        waiting.extend((holder, part) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, np.ndarray):
        return list(value.ravel()) if value.dtype == object else []
    if isinstance(value, type | ModuleType | FunctionType | MethodType) or _is_deep(value):
        return []
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def _is_deep(value: Any) -> bool:
    """Return whether a value is a torch module or a trained net; imports neither package."""
    kinds = (("torch.nn", "Module"), ("skorch", "NeuralNet"))
    return any(
        isinstance(value, getattr(sys.modules[module], name))
        for module, name in kinds
        if module in sys.modules
    )


def _is_network(value: Any) -> bool:
    """Return whether a value is a trained net, or a module other than a loss."""
    if not _is_deep(value):
        return False
    from hybridseg.deep import stored as deep_persistence

    return not isinstance(value, deep_persistence.LOSSES)


def _replaced(root: Any, others: dict[int, Any]) -> Any:
    """Copy an object with some objects within it replaced, by id; arrays are not copied."""
    memo = {id(value): value for _, value in inside(root) if not _parts(value)}
    return copy.deepcopy(root, memo | others)


def _without_networks(model: Any) -> tuple[Any, list[Any]]:
    """Return a copy of a model with a StoredNetwork for each network, and the networks."""
    networks = [value for _, value in inside(model) if _is_network(value)]
    stored = {id(network): StoredNetwork(i) for i, network in enumerate(networks)}
    bare = _replaced(model, stored)
    for _, value in list(inside(bare)):
        factory = getattr(value, "network", None)
        if isinstance(value, BaseEstimator) and _is_foreign_factory(factory):
            value.network = StoredNetwork(len(networks))
            networks.append(factory)
    return bare, networks


def _is_foreign_factory(value: Any) -> bool:
    """Return whether a value makes networks and is not a class of this package."""
    ours = isinstance(value, type) and value.__module__.split(".")[0] == "hybridseg"
    return callable(value) and not ours and not isinstance(value, StoredNetwork)


def _with_networks(
    bare: Any, described: list[Any], weights: list[bytes], network: Any, trusted: Sequence[str]
) -> Any:
    """Copy a model with networks in place of each StoredNetwork.

    Raises
    ------
    TypeError
        ``network`` is needed.
    ValueError
        The networks could not come from :func:`save`.
    """
    places = [(owner, value) for owner, value in inside(bare) if isinstance(value, StoredNetwork)]
    indices = [vars(place).get("index") for _, place in places]
    for index in indices:
        if not isinstance(index, int) or not 0 <= index < min(len(described), len(weights)):
            raise ValueError(f"the file refers to a network {index} that it lacks.")
    if not len(set(indices)) == len(described) == len(weights):
        raise ValueError("the file has been tampered with: it has networks that no estimator uses.")
    if not places:
        return bare
    from hybridseg.deep import stored as deep_persistence

    made: dict[int, Any] = {}
    for entry in described:
        deep_persistence.check_entry(entry)
    for wanted in (False, True):  # trained nets need the parameters, so they come last
        for owner, place in places:
            entry, content = described[place.index], weights[place.index]
            if (entry["kind"] == "net") is wanted:
                given, crf = network, False
                if wanted:
                    given, crf = getattr(owner, "network", None), getattr(owner, "crf", False)
                    given, crf = made.get(id(given), given), made.get(id(crf), crf)
                made[id(place)] = deep_persistence.restore(
                    entry, content, owner, given, trusted, crf=crf
                )
    return _replaced(bare, made)


def _weights_name(index: int) -> str:
    return f"networks/{index}.safetensors"


def _versions() -> dict[str, str]:
    found = {"hybridseg": __version__}
    for name in ("scikit-learn", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _warn_of_versions(written: dict[str, str], n_networks: int) -> None:
    here = _versions()
    names = ["hybridseg", "scikit-learn", *["torch"] * bool(n_networks)]
    differing = [
        f"{name} {written.get(name)} (here {here.get(name)})"
        for name in names
        if written.get(name) != here.get(name)
    ]
    if differing:
        warn_caller(
            f"the model was saved with {', '.join(differing)}; its predictions may differ.",
        )


def _skops() -> Any:
    try:
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise ImportError("saving and loading models needs skops: pip install skops") from error
