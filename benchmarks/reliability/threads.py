"""Every estimator, used by eight threads and by one."""

from __future__ import annotations

import copy
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.reliability.tables import Table
from hybridseg import (
    CrossFit,
    DeepFeatures,
    DeepSegmenter,
    DenseCRF,
    DomainAdapter,
    GraphCut,
    GridCRF,
    LevelSet,
    PixelClassifier,
    PretrainedSegmenter,
    SuperpixelClassifier,
)
from hybridseg.datasets import make_scenes
from hybridseg.networks import NETWORKS, adapt
from hybridseg.unary import Views

N_THREADS = 8
_SHAPE = (32, 48)
#: Networks that are quick on any machine, with batch statistics, dropout and squeezing.
_LIGHT = ("espnet", "espnetv2", "lraspp", "liteseg")
_TEXT = f"""
Each estimator was fitted once. Then {N_THREADS} threads called `predict`, `predict_proba`,
`transform` and `score` of that one object at the same time, on the same images, repeatedly and each
in another order. Half of the threads shared the Scenes that one `transform` had returned. A *map*
is a label map, a probability map, a cost map or a score. A map *differs* if any bit is not the same
as with one thread. The *model changed* if the checksum of its state (weights, batch statistics,
modes of its modules, parameters, random generators) changed. The *process changed* if the random
generator of NumPy, torch or Python, a number of threads, or a warning filter changed.
"""


def measure(seconds: float, seed: int) -> list[Table]:
    """Count maps, and maps that differ, for ``seconds``."""
    scenes = make_scenes(6, shape=_SHAPE, random_state=seed)
    models = list(_models(scenes.images[:3], scenes.labels[:3], seed))
    rows = []
    for number, (name, make) in enumerate(models):
        left = seconds / (len(models) - number)
        began = time.perf_counter()
        rows.append((name, *_raced(make(), scenes.images[3:], scenes.labels[3:], left)))
        seconds -= time.perf_counter() - began
        print(*rows[-1], sep=" | ", flush=True)
    columns = ("estimator", "maps compared", "maps that differ", "model changed", "process changed")
    total = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))
    changed = tuple(sum(row[i] == "yes" for row in rows) for i in (3, 4))
    return [Table("One model, eight threads", _TEXT, columns, (*rows, (*total, *changed)))]


def _models(
    images: list[Any], labels: list[Any], seed: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Return names, and functions that make fitted estimators."""
    boosted = HistGradientBoostingClassifier(max_iter=20, random_state=seed)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    encoder = DeepFeatures("mobilenet_v3_small", weights=None, strides=(2, 8))
    small = {"network_options": {"width": 4, "depth": 2, "dropout": 0.2}, "random_state": seed}
    quick = {"max_epochs": 2, "crops_per_image": 4, "crop_size": 32, **small}
    plain = {
        "PixelClassifier": PixelClassifier(random_state=seed),
        "PixelClassifier, boosted trees": PixelClassifier(boosted, random_state=seed),
        "PixelClassifier, DeepFeatures": PixelClassifier(linear, features=encoder),
        "SuperpixelClassifier": SuperpixelClassifier(random_state=seed),
        "CrossFit": CrossFit(PixelClassifier(random_state=seed), cv=3),
        **{
            f"PixelClassifier, {type(refiner).__name__}": make_pipeline(
                PixelClassifier(random_state=seed), refiner
            )
            for refiner in (DenseCRF(), GridCRF(), GraphCut(), LevelSet())
        },
        "GraphCut on regions": GraphCut(SuperpixelClassifier(random_state=seed), on="regions"),
        "GridCRF on regions": GridCRF(SuperpixelClassifier(random_state=seed), on="regions"),
        "DeepSegmenter": DeepSegmenter("unet", **quick),
        "DeepSegmenter, mirrored, in tiles": DeepSegmenter("unet", **quick, tta="mirror", tile=32),
    }
    for name, model in plain.items():
        yield name, lambda model=model: model.fit(images, labels)

    def adapted(method: Any) -> Any:
        source = PretrainedSegmenter(_elsewhere("enet", seed), range(4))
        return DomainAdapter(source, method, guard=False, random_state=seed).fit(images)

    for method in ("batch_statistics", ["batch_statistics", "entropy"]):
        yield f"DomainAdapter, {method}", lambda method=method: adapted(method)
    views = {"tta": Views(scales=(0.5, 1.0)), "tile": 32}
    for options in ({}, {"precision": "bfloat16"}, views):
        name = ", ".join(["PretrainedSegmenter, enet", *options])
        yield (
            name,
            lambda options=options: PretrainedSegmenter(
                _elsewhere("enet", seed), range(4), **options
            ),
        )
    for network in _LIGHT:
        yield (
            f"PretrainedSegmenter, {network}",
            lambda network=network: PretrainedSegmenter(_elsewhere(network, seed), range(4)),
        )
    yield (
        "PretrainedSegmenter, torchvision, DenseCRF",
        lambda: make_pipeline(PretrainedSegmenter(_of_torchvision(seed), range(4)), DenseCRF()),
    )


def _elsewhere(name: str, seed: int) -> nn.Module:
    """Return a new network in training mode, with the statistics of one batch."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return _run_once(NETWORKS[name](in_channels=3, n_classes=4))


def _of_torchvision(seed: int) -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        build = lraspp_mobilenet_v3_large
        return _run_once(build(weights=None, weights_backbone=None, num_classes=4))


def _run_once(network: nn.Module) -> nn.Module:
    network = adapt(network, statistics="imagenet").train()
    with torch.no_grad():
        network(255 * torch.rand(2, 3, 64, 64))
    return network


def _raced(
    model: Any, images: list[Any], labels: list[Any], seconds: float
) -> tuple[int, int, str, str]:
    """Return the numbers of maps and of maps that differ, and whether model and process changed."""
    held = joblib.hash(model)
    expected = [_said(model, image, truth) for image, truth in zip(images, labels, strict=True)]
    around = _surroundings()  # after what is imported when it is first needed
    end, compared, differ = time.perf_counter() + seconds, 0, 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        while compared == 0 or time.perf_counter() < end:
            shared = model.transform(images)
            for found in _at_once(lambda n, shared=shared: _turn(model, images, labels, shared, n)):
                for position, maps in found:
                    wanted = expected[position][-len(maps) :]
                    compared += len(maps)
                    differ += sum(
                        not np.array_equal(a, b) for a, b in zip(maps, wanted, strict=True)
                    )
    finally:
        sys.setswitchinterval(interval)
    model_changed, process_changed = joblib.hash(model) != held, _surroundings() != around
    return compared, differ, *("yes" if each else "no" for each in (model_changed, process_changed))


def _turn(
    model: Any, images: list[Any], labels: list[Any], shared: Any, number: int
) -> list[tuple[int, list[Any]]]:
    """Return the results of one thread: of each image, or of the shared Scenes."""
    order = np.roll(np.arange(len(images)), number).tolist()
    if number % 2:
        return [(i, _known(shared[i])) for i in order]
    return [(i, _said(model, images[i], labels[i])) for i in order]


def _said(model: Any, image: Any, truth: Any) -> list[Any]:
    maps = [np.array(model.score([image], [truth])), model.predict([image])[0]]
    if hasattr(model, "predict_proba"):
        maps += model.predict_proba([image])
    return maps + _known(model.transform([image])[0])


def _known(scene: Any) -> list[Any]:
    return [scene.unary, scene.prediction]


def _at_once(work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(N_THREADS)

    def start(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(start, range(N_THREADS)))


def _surroundings() -> Any:
    import random

    import numba

    threads = numba.get_num_threads()  # first: it starts numba's threads, which OpenMP counts, too
    return (
        joblib.hash(np.random.get_state()),  # noqa: NPY002
        joblib.hash(torch.get_rng_state().numpy()),
        hash(random.getstate()),
        (threads, torch.get_num_threads(), torch.is_grad_enabled()),
        copy.copy(warnings.filters),
    )
