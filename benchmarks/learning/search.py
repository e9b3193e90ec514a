"""The control: a random search of the parameters of pydensecrf2, by mean IoU on val."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydensecrf.densecrf import DenseCRF2D

from benchmarks.learning.choice import Choice, Setting
from benchmarks.learning.costs import Part
from benchmarks.learning.scores import mean_iou, tables_of
from hybridseg import Scene

N_ITER = 5
#: Ranges around the usual values; trials are log-uniform in them. Widths in pixels and in color.
RANGES = {
    "spatial_width": (1.0, 10.0),
    "spatial_weight": (0.5, 10.0),
    "bilateral_width": (5.0, 100.0),
    "bilateral_color": (3.0, 30.0),
    "bilateral_weight": (0.5, 10.0),
}


@dataclass(frozen=True)
class Parameters:
    spatial_width: float
    spatial_weight: float
    bilateral_width: float
    bilateral_color: float
    bilateral_weight: float


def trials(n_trials: int, seed: int) -> Iterator[Parameters]:
    """Yield parameters; the first n of a longer search are those of a shorter one."""
    rng = np.random.default_rng(seed)
    low, high = np.log(np.array(list(RANGES.values()))).T
    for _ in range(n_trials):
        yield Parameters(*(float(f"{v:.4g}") for v in np.exp(rng.uniform(low, high))))


def refined(parameters: Parameters, scene: Scene) -> NDArray[np.int8]:
    """Return the labels after mean field by pydensecrf2."""
    costs = np.asarray(scene.unary, np.float32)
    image = np.array(scene.image, np.uint8)  # the peer takes no read-only array
    height, width, n_labels = costs.shape
    model = DenseCRF2D(width, height, n_labels)
    model.setUnaryEnergy(np.ascontiguousarray(costs.reshape(-1, n_labels).T))
    model.addPairwiseGaussian(sxy=parameters.spatial_width, compat=parameters.spatial_weight)
    model.addPairwiseBilateral(
        sxy=parameters.bilateral_width,
        srgb=parameters.bilateral_color,
        rgbim=image,
        compat=parameters.bilateral_weight,
    )
    marginals = np.array(model.inference(N_ITER))
    return marginals.argmax(axis=0).reshape(height, width).astype(np.int8)


def random_search(val: Part, setting: Setting) -> Choice:
    """Choose the trial with the highest mean IoU on the validation images."""
    found = []
    for number, parameters in enumerate(trials(setting.n_trials, setting.seed)):
        found.append((mean_iou(tables_of(val, partial(refined, parameters))), parameters))
        print(f"trial {number}: {100 * found[-1][0]:.2f} {parameters}", flush=True)
    best, parameters = max(found, key=lambda each: each[0])
    scores = [round(100 * score, 2) for score, _ in found]
    facts = {
        "parameters": asdict(parameters),
        "n_trials": setting.n_trials,
        "val_mean_iou": round(100 * best, 2),
        "val_mean_iou_of_trials": scores,
    }
    return Choice(partial(refined, parameters), facts)
