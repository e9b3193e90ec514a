"""Fitted models as files that hold data and no code: skops for estimators, safetensors for weights.

A file is a zip archive: ``manifest.json`` (versions, what the networks are), ``model.skops`` (the
estimators, with a :class:`StoredNetwork` in each network's place), ``networks/*.safetensors``.
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

#: The second format differs from the first by the modules that classes are named by.
_FORMAT = 2
_MODEL, _MANIFEST = "model.skops", "manifest.json"


class StoredNetwork:
    """What stands for a network among the estimators of a file.

    Attributes
    ----------
    index : int
        Its place in the manifest's list.
    """

    def __init__(self, index: int) -> None:
        self.index = index


def save(model: Any, path: str | os.PathLike[str]) -> Path:
    """Write a model to a file from which :func:`load` makes it again.

    Parameters
    ----------
    model : estimator
        Any estimator of this package or of scikit-learn, fitted or not: a segmenter, a refiner, a
        Pipeline, a GridSearchCV (of which you may want ``best_estimator_`` only).
    path : path
        Written under a temporary name, pushed to the disk and renamed, so it is whole or absent.
        What an earlier call has left that was killed is removed.

    Returns
    -------
    Path
        The file's.

    Raises
    ------
    TypeError
        ``model`` is no estimator, or holds something that cannot be written without pickle, such
        as a lambda; or is a search over networks: save its ``best_estimator_``.

    Warns
    -----
    UserWarning
        The file will lack something that :func:`load` must be given: a network from elsewhere, one
        that was changed after it was made, or a factory of your own (``network=``); a class or
        function that is not trusted (``trusted=``).

    Notes
    -----
    Networks of this package come back whole, also within :func:`hybridseg.networks.adapt`.
    Networks keep their weights, their history and what they are, but not the optimizer's state:
    they can be trained further, not resumed in mid-epoch (``DeepSegmenter(checkpoint=...)`` can).
    Features of pretrained networks are not copied: their weights must be found again by name.

    Examples
    --------
    >>>     >>> model = hybridseg.load(hybridseg.save(model, "leaves.hybridseg"))  # doctest: +SKIP
    """
    if not isinstance(model, BaseEstimator):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an estimator, such as "
            f"make_pipeline(PixelClassifier(), DenseCRF())."
        )
    skops_io = _skops()
    bare, networks = _without_networks(model)
    if any(_is_network(value) for _, value in inside(bare)):  # masked arrays keep theirs
        raise TypeError(
            f"model is a {type(model).__name__} whose results hold networks, which cannot be "
            f"written there; save its best_estimator_."
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
    """Read a model that :func:`save` wrote; no code in the file is run.

    Parameters
    ----------
    path : path
    network : torch.nn.Module, or callable, optional
        Where the network is a module, or a class or function, of your own: the same again, into
        which the file's weights are loaded (a copy of a module). A class or function is called as
        DeepSegmenter does, with ``in_channels`` and ``n_classes``; for other estimators, if it
        does not take these, without arguments. A DeepSegmenter keeps it as its parameter.
    trusted : sequence of str
        Full names ("package.module.Name") of further classes and functions that may be imported
        and made. Only such whose code you know: a file can make them with any content.

    Returns
    -------
    estimator
        As it was saved. Networks are on the device they were on, or on the CPU where there is
        none such.

    Raises
    ------
    OSError
        There is no such file, or it cannot be read.
    ValueError
        The file is no model of :func:`save`, is broken, or has been tampered with; whatever else is
        wrong with a file is told so too. The message names the file and what is broken in it.
    TypeError
        It holds a type that is not trusted, or a network of your own without ``network=``; the
        message names it.

    Warns
    -----
    UserWarning
        hybridseg, scikit-learn or torch had another version when the file was written: results may
        differ.

    Notes
    -----
    Estimators and parameter objects of this package, of scikit-learn, NumPy's and SciPy's values,
    torch's optimizers and losses and skorch's callbacks are trusted. Numbers that compiled code
    would follow blindly are checked: nodes of trees, indices, counts, shapes. A file takes no more
    memory than some times its own size: its entries are stored, never compressed, and a network is
    compared with the file's weights before memory is taken for it.
    """
    if isinstance(trusted, str):
        raise TypeError(f"trusted={trusted!r} is text; expected a list of full names.")
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
                warnings.simplefilter("ignore", InconsistentVersionWarning)  # said already
                bare = skops_io.loads(estimators, trusted=names)
        except Exception as error:  # __setstate__ of any class that a model may hold
            raise ValueError(
                f"its estimators cannot be read with the versions installed, or it has been "
                f"tampered with ({error!r}); it was written with {manifest['versions']}"
            ) from error
        parts = list(inside(bare))
        check_state(parts)
        if manifest.get("predicts") is True and not predicts_a_row(parts):
            raise ValueError("a part of it no longer predicts: it has been tampered with.")
        model = _with_networks(bare, described, weights, network, trusted)
        check_parameters(list(inside(model)))
        return model


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every error, and make errors that nobody foresaw to one kind."""
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
    """A file's manifest, its estimators and the weights of its networks."""
    try:
        entries = read_archive(content)
        manifest = json.loads(entries.pop(_MANIFEST))
        estimators = entries.pop(_MODEL)
        version = manifest["hybridseg model"]
        described = manifest.setdefault("networks", [])
        versions = manifest.setdefault("versions", {})
        if not isinstance(described, list) or not isinstance(versions, dict):
            raise ValueError("its manifest is written in another way")
    except Exception as error:  # of bytes that may be anything
        raise ValueError(
            f"the file is no model that hybridseg.save wrote, or is broken ({error!r})."
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
    """Say what a file cannot hold, and :func:`load` must be given again."""
    for described in manifest.get("networks", []):
        if described["kind"] != "net" and "made" not in described:
            warn_caller(
                f"a file cannot hold the network {described['name']}, only its weights; to read "
                f"the model, pass it again: hybridseg.load(path, network=...).",
            )
    with contextlib.suppress(ValueError):  # a broken model: load says what is
        try:
            check_contents(estimators, ())
        except TypeError as error:
            warn_caller(f"for the reading of it: {error}")


def _predicts_a_row(estimators: bytes, bare: Any) -> bool:
    """Whether a model that was found to be whole predicts; one that was not could crash."""
    parts = list(inside(bare))
    try:
        check_contents(estimators, ())
        check_state(parts)
    except (TypeError, ValueError):
        return False
    return predicts_a_row(parts)


def inside(root: Any) -> Iterator[tuple[Any, Any]]:
    """Everything that an object holds, each once, after the object that holds it: (owner, value).

    Looks into containers, arrays of objects and attributes; not into networks and losses.
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
    """Whether it is a module or a trained net; where these were never imported there is none."""
    kinds = (("torch.nn", "Module"), ("skorch", "NeuralNet"))
    return any(
        isinstance(value, getattr(sys.modules[module], name))
        for module, name in kinds
        if module in sys.modules
    )


def _is_network(value: Any) -> bool:
    """Whether it is a trained net, or a module that is no loss."""
    if not _is_deep(value):
        return False
    from hybridseg.deep import stored as deep_persistence

    return not isinstance(value, deep_persistence.LOSSES)


def _replaced(root: Any, others: dict[int, Any]) -> Any:
    """A copy of an object with some of what it holds replaced, by id; arrays are not copied."""
    memo = {id(value): value for _, value in inside(root) if not _parts(value)}
    return copy.deepcopy(root, memo | others)


def _without_networks(model: Any) -> tuple[Any, list[Any]]:
    """A copy of a model in which a StoredNetwork stands for each network, and the networks."""
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
    """Whether it makes networks, and is no class of this package."""
    ours = isinstance(value, type) and value.__module__.split(".")[0] == "hybridseg"
    return callable(value) and not ours and not isinstance(value, StoredNetwork)


def _with_networks(
    bare: Any, described: list[Any], weights: list[bytes], network: Any, trusted: Sequence[str]
) -> Any:
    """A copy of a model with networks where a StoredNetwork stands.

    Raises
    ------
    TypeError
        A network has to be given.
    ValueError
        The networks are not as :func:`save` writes them.
    """
    places = [(owner, value) for owner, value in inside(bare) if isinstance(value, StoredNetwork)]
    indices = [vars(place).get("index") for _, place in places]
    for index in indices:
        if not isinstance(index, int) or not 0 <= index < min(len(described), len(weights)):
            raise ValueError(f"the file refers to a network {index} that it lacks.")
    if not len(set(indices)) == len(described) == len(weights):
        raise ValueError("the file has been tampered with: it has networks that no model holds.")
    if not places:
        return bare
    from hybridseg.deep import stored as deep_persistence

    made: dict[int, Any] = {}
    for entry in described:
        deep_persistence.check_entry(entry)
    for wanted in (False, True):  # trained nets are made from the parameters, so they come last
        for owner, place in places:
            entry, content = described[place.index], weights[place.index]
            if (entry["kind"] == "net") is wanted:
                given = network
                if wanted:
                    given = getattr(owner, "network", None)
                    given = made.get(id(given), given)
                made[id(place)] = deep_persistence.restore(entry, content, owner, given, trusted)
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
