"""Every public function, and every method of an estimator, with valid arguments."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (9, 11)
VOLUME = (3, 6, 7)
N_LABELS = 3


@dataclass(frozen=True)
class Target:
    """Something to call.

    Attributes
    ----------
    name : str
    call : callable
    good : dict
        Arguments by name; those of ``positional`` by their order.
    nan : bool
        Whether a result may be NaN (a score that is not defined).
    loops : frozenset of str
        Arguments that ask for so many rounds of work.
    """

    name: str
    call: Callable[..., Any]
    good: dict[str, Any]
    nan: bool = False
    loops: frozenset[str] = field(default_factory=frozenset)


LOOPS = frozenset(
    ["n_iter", "max_iter", "bound_iter", "n_bins", "context", "smoothing", "n_scenes"]
)


def example(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    """An image of three colored parts, its label map, and costs."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int64)
    labels[..., shape[-1] // 3 :] = 1
    labels[..., shape[-2] // 2 :, : shape[-1] // 2] = 2
    image = np.clip(80 * labels[..., np.newaxis] + rng.normal(20, 9, (*shape, 3)), 0, 255)
    unary = rng.normal(1, 0.5, (*shape, N_LABELS)) - 1.5 * np.eye(N_LABELS)[labels]
    return image.astype(np.uint8), labels, unary


def functions() -> Iterator[Target]:
    """All public functions on arrays."""
    yield from _features()
    yield from _pairwise()
    yield from _inference()
    yield from _metrics()


def _dense() -> dict[str, Any]:
    return {
        "spatial_weight": 3.0,
        "spatial_width": 3.0,
        "bilateral_weight": 10.0,
        "bilateral_width": 80.0,
        "bilateral_color": 13.0,
        "compatibility": np.ones((N_LABELS, N_LABELS)) - np.eye(N_LABELS),
        "kernels": (),
        "intensity_range": (0, 255),
        "spacing": (1.0, 1.0),
        "valid": np.ones(SHAPE, bool),
    }


def _some(names: str, **changed: Any) -> dict[str, Any]:
    return {name: _dense()[name] for name in names.split()} | changed


def _features() -> Iterator[Target]:
    from hybridseg import features

    image, labels, _ = example()
    seen = _some("intensity_range spacing valid", spatial_ndim=2)
    volume = example(1, VOLUME)[0]
    shared = {"image": image, "n_segments": 8, "compactness": 10.0, "n_iter": 3} | seen
    yield _function(features.slic, **shared)
    yield _function(
        features.slic, "slic in 3-D", image=volume, n_segments=5, spacing=(2.0, 1.0, 1.0)
    )
    yield _function(features.etps, smoothness=2.0, **shared)
    yield _function(features.felzenszwalb, image=image, scale=50.0, sigma=0.8, min_size=5, **seen)
    yield _function(features.region_graph, regions=labels)
    yield _function(features.region_means, colors=image / 255, regions=labels)
    yield _function(features.region_sums, values=image / 255, regions=labels)
    yield _function(features.region_labels, regions=labels, labels=labels, n_regions=3)
    colors = image.astype(np.float32)
    options = {"sigmas": (1.0, 2.0), "intensity": True, "edges": True, "texture": True}
    yield _functor(features.PixelFeatures, options | {"position": True}, colors=colors, spacing=1.0)
    options = {"n_bins": 4, "sigmas": (1.0,), "context": 1, "position": True, "size": True}
    yield _functor(features.RegionFeatures, options, colors=colors, regions=labels, spacing=1.0)
    options = {"n_segments": 8, "compactness": 10.0, "n_iter": 2}
    yield _functor(features.SLIC, options, image=image, **seen)
    yield _functor(features.ETPS, options | {"smoothness": 1.0}, image=image, **seen)
    options = {"scale": 50.0, "sigma": 0.5, "min_size": 4}
    yield _functor(features.Felzenszwalb, options, image=image, **seen)


def _pairwise() -> Iterator[Target]:
    from hybridseg import pairwise
    from hybridseg.features import region_graph

    image, labels, unary = example()
    rows, columns = np.ones((8, 11)), np.full((9, 10), 0.5)
    seen = _some("intensity_range spacing valid", spatial_ndim=2)
    matrix = _dense()["compatibility"]
    yield _function(pairwise.as_compatibility, compatibility=matrix, n_labels=3)
    yield _function(
        pairwise.energy,
        labels=labels,
        unary=unary,
        weights=[rows, columns],
        compatibility=matrix,
        label_costs=np.array([1.0, 2.0, 0.0]),
    )
    ends = [np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([1, 2, 3])]
    nodes = {"labels": np.array([0, 1, 1, 0]), "unary": np.arange(8).reshape(4, 2)}
    yield _function(pairwise.energy, "energy of a graph", **nodes, weights=ends)
    options = {"weight": 2.0, "contrast": 30.0, "connectivity": 1}
    yield _function(pairwise.grid_weights, image=image, **options, **seen)
    del options["connectivity"]
    means = np.array([[0.0, 1, 2], [9, 8, 7], [100, 50, 0]])
    yield _function(pairwise.region_weights, graph=region_graph(labels), colors=means, **options)
    dense = _some(
        "bilateral_weight bilateral_width bilateral_color kernels intensity_range spacing"
    )
    yield _function(pairwise.dense_region_weights, regions=labels, image=image, **dense)
    yield _function(pairwise.dense_energy, labels=labels, unary=unary, image=image, **_dense())
    small = np.zeros((4, 5, 3), np.float32)
    yield _functor(
        pairwise.GaussianKernel, {"weight": 1.0, "width": 2.0}, "embed", colors=small, spacing=1.0
    )
    options = {"weight": 1.0, "width": 2.0, "color": 9.0}
    yield _functor(pairwise.BilateralKernel, options, "embed", colors=small, spacing=1.0)
    options = {"weight": 1.0, "features": np.ones((*SHAPE, 2))}
    yield Target("FeatureKernel", _with_feature_kernel, options)


def _with_feature_kernel(**options: Any) -> Any:
    from hybridseg.inference import mean_field
    from hybridseg.pairwise import FeatureKernel

    image, _, unary = example()
    return mean_field(unary, image, kernels=[FeatureKernel(**options)], n_iter=2)


def _inference() -> Iterator[Target]:
    from hybridseg import inference

    image, labels, unary = example()
    rows, columns = np.ones((8, 11)), np.full((9, 10), 0.5)
    grid = {"unary": unary, "weights": [rows, columns]}
    rounds = {"n_iter": 3, "tol": 0.01}
    seeds = np.where(example(2)[0][..., 0] > 150, labels, -1)
    matrix = _dense()["compatibility"]
    proba = np.full(unary.shape, 1 / 3)
    yield _function(
        inference.mean_field,
        unary=unary,
        image=image,
        init=proba,
        prune=1e-4,
        **rounds,
        **_dense(),
    )
    two = {"unary": unary[..., :2], "image": image}
    yield _function(inference.mean_field, "mean_field, 2 labels", **two, **rounds)
    yield Target("DenseModel", _dense_model, {"image": image, "unary": unary} | _dense() | rounds)
    cut = {"seeds": seeds, "init": labels, "max_iter": 3, "moves": "expansion", "solver": "numba"}
    yield _function(inference.graph_cut, **grid, **cut, compatibility=matrix, bound_iter=3)
    whole = {"unary": (unary[..., :2] * 9).astype(int), "weights": [rows.astype(int), columns]}
    yield _function(inference.graph_cut, "graph_cut, 2 labels", **whole, seeds=np.minimum(seeds, 1))
    ends = [np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([1, 2, 3])]
    nodes = {"unary": np.arange(12).reshape(4, 3), "weights": ends}
    yield _function(inference.graph_cut, "graph_cut of a graph", **nodes, max_iter=3)
    yield Target("DynamicCut", _dynamic_cut, whole | {"seeds": seeds.clip(-1, 1), "strength": 2.0})
    yield _function(inference.grid_mean_field, **grid, **rounds, compatibility=matrix, damping=0.1)
    yield _function(inference.grid_mean_field, "grid_mean_field of a graph", **nodes, **rounds)
    seen = _some("intensity_range spacing valid")
    yield _function(
        inference.random_walker, image=image, seeds=seeds, beta=90.0, tol=1e-3, max_iter=9, **seen
    )
    gray = image[..., 0] / 255
    sides = {"lambda1": 1.0, "lambda2": 1.0}
    yield _function(
        inference.chan_vese, image=gray, mu=0.2, tol=1e-3, max_iter=3, dt=0.5, init=gray, **sides
    )
    options = {"n_iter": 3, "init": labels.clip(0, 1), "smoothing": 1, "spatial_ndim": 2}
    yield _function(inference.morphological_chan_vese, image=gray, **options, **sides)
    yield _function(
        inference.morphological_geodesic_active_contour,
        gimage=gray,
        **options,
        threshold=0.5,
        balloon=1.0,
    )


def _dense_model(**given: Any) -> Any:
    from hybridseg.inference import DenseModel

    solving = {"spatial_weight", "bilateral_weight", "compatibility", "n_iter", "tol", "unary"}
    model = DenseModel.of(**{k: v for k, v in given.items() if k not in solving})
    return model.mean_field(**{k: v for k, v in given.items() if k in solving})


def _dynamic_cut(weights: Any, **given: Any) -> Any:
    from hybridseg.inference import DynamicCut

    cut = DynamicCut(weights)
    cut.solve(**given)
    return cut.solve(**given)


def _metrics() -> Iterator[Target]:
    from hybridseg import metrics

    truth, other = example()[1], example(3)[1].copy()
    other[2:4] = 1
    maps = {"truth": truth, "prediction": other}
    some = {"ignore_label": 7}
    listed = {"labels": [0, 1, 2]} | some
    lists = {"truth": [truth, other], "prediction": [other, other]}
    weighed = {"sample_weight": np.array([1.0, 2.0])}
    for name in ("confusion_table", "pixel_accuracy", "mean_iou", "mean_dice"):
        more = some if name == "pixel_accuracy" else listed
        function = getattr(metrics, name)
        yield _function(function, nan=True, **maps, **more)
        yield _function(function, f"{name} of lists", nan=True, **lists, **more, **weighed)
    yield _function(metrics.mean_iou, "mean_iou by image", nan=True, **lists, average="image")
    yield _function(metrics.iou_per_class, nan=True, **maps, **listed)
    banded = listed | {"dilation_ratio": 0.05}
    for name in ("boundary_iou", "boundary_iou_per_class"):
        yield _function(getattr(metrics, name), nan=True, **maps, **banded)
    yield _function(metrics.boundary_iou, "boundary_iou by width", nan=True, **maps, width=2)
    yield _function(metrics.boundary_recall, nan=True, **maps, **some, tolerance=0.01)
    yield _function(metrics.boundary_recall, "boundary_recall by width", nan=True, **maps, width=1)
    for name in ("undersegmentation_error", "achievable_accuracy"):
        yield _function(getattr(metrics, name), nan=True, **maps, **some)
    proba = np.full((*SHAPE, 3), 1 / 3)
    yield _function(
        metrics.expected_calibration_error,
        nan=True,
        truth=truth,
        proba=proba,
        classes=np.arange(3),
        n_bins=5,
        **some,
    )


def _function(
    call: Callable[..., Any], name: str = "", *, nan: bool = False, **good: Any
) -> Target:
    return Target(name or call.__name__, call, good, nan, LOOPS & set(good))


def _functor(kind: Any, options: dict[str, Any], method: str = "__call__", **good: Any) -> Target:
    def call(**given: Any) -> Any:
        made = kind(**{name: given.pop(name) for name in options})
        return getattr(made, method)(**given)

    return Target(kind.__name__, call, options | good, False, LOOPS & set(options))


def estimators() -> Iterator[Target]:
    """Methods of estimators, on models that are fitted once; and their parameters."""
    import hybridseg
    from hybridseg import Scene

    image, labels, unary = example()
    X, y = [image, example(5)[0]], [labels, labels]
    scenes = [Scene(image, unary=unary.astype(np.float32))]
    for name in ("PixelClassifier", "SuperpixelClassifier", "CrossFit"):
        yield Target(f"{name}.fit", _fit(name), {"X": X, "y": y})
        for method in ("predict", "predict_proba", "transform"):
            yield Target(f"{name}.{method}", _method(name, method), {"X": X})
        weights = np.array([1.0, 2.0])
        good = {"X": X, "y": y, "sample_weight": weights}
        yield Target(f"{name}.score", _method(name, "score"), good, nan=True)
        if name != "CrossFit":
            options = {"intensity_range": "dtype", "ignore_label": 7, "random_state": 0}
            options |= {"max_samples": 50} if name == "PixelClassifier" else {}
            yield Target(f"{name}, parameters", _fit_with(name), options)
    for name in ("DenseCRF", "GraphCut", "GridCRF", "LevelSet"):
        kind = getattr(hybridseg, name)
        yield Target(f"{name}.predict", kind().predict, {"X": scenes})
        options = {k: v for k, v in kind().get_params().items() if k != "estimator"}
        options["intensity_range"] = (0, 255)
        yield Target(f"{name}, parameters", _refine_with(kind), options, loops=LOOPS & set(options))
    fields = {
        "image": image,
        "classes": [0, 1, 2],
        "valid": np.ones(SHAPE, bool),
        "seeds": np.full(SHAPE, -1),
        "spacing": (1.0, 1.0),
        "spatial_ndim": 2,
        "intensity_range": (0, 255),
        "ignore_label": 7,
    }
    for name, value in (("logits", 3.0), ("proba", 1 / 3)):
        good = fields | {name: np.full((*SHAPE, 3), value)}
        yield Target(f"Scene.from_{name}", _scene(f"from_{name}"), good)
    yield from _data()


def _data() -> Iterator[Target]:
    from hybridseg import datasets

    made = {"n_scenes": 2, "shape": (9, 11), "n_classes": 3, "n_channels": 3}
    made |= {"noise": 0.1, "texture": 0.05, "random_state": 0}
    yield _function(datasets.make_scenes, **made)
    yield Target("write_labels", _written, {"labels": example()[1], "ignore_label": 255})


def _written(**given: Any) -> Any:
    from hybridseg.datasets import read_labels, write_labels

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.png"
        write_labels(path, **given)
        return read_labels(path, ignore_label=given.get("ignore_label"))


@cache
def _model(name: str) -> Any:
    return _new(name).fit([example(i)[0] for i in range(2)], [example()[1]] * 2)


def _new(name: str, **options: Any) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    from hybridseg import CrossFit, PixelClassifier, SuperpixelClassifier
    from hybridseg.features import SLIC, PixelFeatures

    tree = DecisionTreeClassifier(max_depth=4, random_state=0)
    if name == "SuperpixelClassifier":
        return SuperpixelClassifier(tree, superpixels=SLIC(12), **options)
    pixels = PixelClassifier(tree, features=PixelFeatures(sigmas=(1.0,)), **options)
    return CrossFit(pixels, cv=2) if name == "CrossFit" else pixels


def _fit(name: str) -> Callable[..., Any]:
    return lambda **given: _new(name).fit(**given).predict([example()[0]])


def _fit_with(name: str) -> Callable[..., Any]:
    image, labels, _ = example()
    return lambda **options: _new(name, **options).fit([image], [labels]).predict([image])


def _method(name: str, method: str) -> Callable[..., Any]:
    return lambda **given: getattr(_model(name), method)(**given)


def _refine_with(kind: Any) -> Callable[..., Any]:
    def call(**options: Any) -> Any:
        from hybridseg import Scene

        image, _, unary = example()
        return kind(**options).predict([Scene(image, unary=unary.astype(np.float32))])

    return call


def _scene(maker: str) -> Callable[..., Any]:
    def call(**given: Any) -> Any:
        from hybridseg import DenseCRF, GraphCut, Scene

        scene = getattr(Scene, maker)(**given)
        found = [scene.proba, scene.colors, scene.prediction]
        found += GraphCut().predict([scene])
        return found + DenseCRF(n_iter=2).predict_proba([scene])

    return call


def deep() -> Iterator[Target]:
    """Targets that need torch: weights of losses, and a pretrained network."""
    from hybridseg import losses
    from hybridseg.unary import Augmentation, Views

    label_map = example()[1]
    yield Target("count_classes", losses.count_classes, {"y": [label_map], "classes": [0, 1, 2]})
    counts = losses.count_classes([label_map])
    for name in ("inverse_frequency", "median_frequency", "log_frequency", "effective_number"):
        yield Target(name, getattr(losses, name), {"counts": counts})
    yield Target("signed_distances", losses.signed_distances, {"labels": label_map, "n_classes": 3})
    yield Target("gap_weights", losses.gap_weights, {"labels": label_map, "spacing": 1.0})
    options = {"scales": (1.0, 0.5), "mirror": (-1,), "average": "proba"}
    yield Target("Views", Views, options)
    options = {"symmetry": "upright", "scale": (0.9, 1.1), "contrast": 0.1, "brightness": 0.1}
    yield Target("Augmentation", Augmentation, options | {"tint": 0.1})
    image = example()[0]
    yield Target("PretrainedSegmenter.predict", lambda X: _pretrained().predict(X), {"X": [image]})
    options = {"classes": [0, 1, 2], "n_channels": 3, "spatial_ndim": 2, "tile": 16, "overlap": 4}
    options |= {"precision": "float32", "intensity_range": "dtype", "ignore_label": 7}
    yield Target(
        "PretrainedSegmenter, parameters", lambda **o: _pretrained(**o).predict([image]), options
    )


def _pretrained(**options: Any) -> Any:
    import torch

    from hybridseg import PretrainedSegmenter

    torch.manual_seed(0)
    return PretrainedSegmenter(
        torch.nn.Conv2d(3, 3, 1), options.pop("classes", [0, 1, 2]), **options
    )


def targets() -> list[Target]:
    """All of them; those of networks where torch is installed."""
    every = [*functions(), *estimators()]
    return every + (list(deep()) if importlib.util.find_spec("torch") else [])
