"""Networks of street scenes by day, adapted to night, fog and noise without labels.

Needs HYBRIDSEG_DATA. Images of CamVid are darkened, fogged or made noisy. A network is
adapted to the first, third, ... image and scored on the second, fourth, ...: mean IoU over CamVid's
11 classes. The networks are the authors' ESPNet, and the pretrained one that ``python -m benchmarks
training camvid`` has left in ``--models``. On the test list, rows are kept in
``benchmarks/adaptation.json`` for ``docs/networks.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hybridseg
from benchmarks.files import write_json
from benchmarks.pretrained import CRF, camvid_espnet
from benchmarks.training.places import MODELS, data_folder, model_path
from hybridseg import DeepSegmenter, DenseCRF, DomainAdapter
from hybridseg.datasets import load_folder, read_image
from hybridseg.metrics import confusion_table

RESULTS = Path(__file__).with_suffix(".json")

_GAMMA = 2.2
_HORIZON = 0.42  # of the height, in CamVid

METHODS: dict[str, dict[str, Any]] = {
    "batch statistics": {"method": "batch_statistics"},
    "entropy": {"method": "entropy"},
    "self-training": {"method": ("batch_statistics", "self_training")},
    "self-training, CRF": {
        "method": ("batch_statistics", "self_training"),
        "refiner": DenseCRF(**CRF),
    },
}


def light(image):
    """Return the light on the sensor, 0..1, for pixel values."""
    return (image / np.float32(255)) ** _GAMMA


def pixel_values(found):
    """Return pixel values for the light on the sensor."""
    return (255 * np.clip(found, 0, 1) ** (1 / _GAMMA) + 0.5).astype(np.uint8)


def sensed(found, electrons, read_noise, rng):
    """Add the noise of a sensor that holds ``electrons``: shot noise and read noise."""
    counted = rng.poisson(found * electrons) + rng.normal(0, read_noise, found.shape)
    return counted / electrons


def as_it_is(image, _):
    return image


def darkened(image, rng):
    """Reduce the light to a tenth: an evening without lamps."""
    return pixel_values(sensed(0.1 * light(image), 1000, 3, rng))


def fogged(image, _):
    """Add fog: with distance, light fades and airlight replaces it.

    The ground's distance grows as one over the height under the horizon; what stands above it is
    as far as the farthest ground.
    """
    row = (np.arange(len(image)) + 0.5) / len(image)
    distance = np.minimum(1, 0.12 / np.maximum(row - _HORIZON, 1e-6))
    passed = np.exp(-1.2 * distance)[:, np.newaxis, np.newaxis]
    return pixel_values(passed * light(image) + (1 - passed) * np.array([0.62, 0.64, 0.67]))


def noisy(image, rng):
    """Add the noise of a small, fast sensor."""
    return pixel_values(sensed(light(image), 150, 4, rng))


SHIFTS: dict[str, Callable[..., Any]] = {
    "as it is": as_it_is,
    "darkened": darkened,
    "fogged": fogged,
    "noisy": noisy,
}


def shifted(paths, shift, seed):
    return [shift(read_image(p), np.random.default_rng((seed, i))) for i, p in enumerate(paths)]


def networks(data: Path, models: Path) -> Iterator[tuple[str, Any]]:
    yield "ESPNet, as published", camvid_espnet(data)
    path = model_path(models, "camvid", "pretrained")
    if path.exists():
        yield "FPN, EfficientNet-Lite0", hybridseg.load(path)
    else:
        print(f"{path} is missing: python -m benchmarks training camvid --only pretrained")


def iou(model, images, truths):
    """The IoU of the 11 classes."""
    tables = [
        confusion_table(np.asarray(truth), model.predict([image])[0], ignore_label=255)
        for image, truth in zip(images, truths, strict=True)
    ]
    table = sum(tables)
    return table.iou[table.labels < 11]


def results(model, shift, part, options) -> Iterator[tuple[str, Any, float]]:
    """Yield each method, the IoU of the classes after it, and its processor seconds."""
    learn = _spread(range(0, len(part.X), 2), options.adapt)
    test = _spread(range(1, len(part.X), 2), options.score)
    shown = shifted([part.X[i] for i in learn], shift, 0)
    held_out = shifted([part.X[i] for i in test], shift, 1)
    truths = [part.y[i] for i in test]
    yield "no adaptation", iou(model, held_out, truths), 0.0
    for name, settings in METHODS.items():
        if "self_training" in settings["method"] and not isinstance(model, DeepSegmenter):
            continue
        start = time.process_time()
        adapter = DomainAdapter(model, rounds=1, epochs=2, random_state=0, **settings).fit(shown)
        seconds = time.process_time() - start
        undone = {row["method"] for row in adapter.history_ if not row["kept"]}
        note = "".join(f" ({method.replace('_', ' ')} undone)" for method in sorted(undone))
        yield name + note, iou(adapter, held_out, truths), seconds


def _spread(positions: Sequence[int], number: int) -> list[int]:
    """Return ``number`` of the positions, evenly spread."""
    places = np.linspace(0, len(positions) - 1, min(number, len(positions)))
    return [positions[int(place)] for place in places]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks adaptation", description=__doc__)
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--adapt", type=int, default=20, help="images to adapt to")
    parser.add_argument("--score", type=int, default=40, help="images to score")
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS), choices=SHIFTS)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of trained models")
    parser.add_argument("--by-class", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = data_folder()
    part = load_folder(data / "camvid", options.split)
    print(
        f"CamVid, {options.split} list: adapted to {options.adapt} images without labels, scored "
        f"on {options.score} others"
    )
    rows = []
    for title, model in networks(data, options.models):
        print(f"{title:<72}{'mIoU':>8}{'CPU':>10}")
        for shift in options.shifts:
            for name, scores, seconds in results(model, SHIFTS[shift], part, options):
                row = {
                    "network": title,
                    "shift": shift,
                    "method": name,
                    "mean_iou": round(100 * float(np.nanmean(scores)), 1),
                    "iou": [round(100 * float(score), 1) for score in scores],
                    "cpu_seconds": round(seconds),
                }
                rows.append(row)
                print(f"  {shift:<12}{name:<58}{row['mean_iou']:>8}{row['cpu_seconds']:>8} s")
                print_classes(part.classes, row["iou"] if options.by_class else ())
    if options.split == "test" and options.shifts == list(SHIFTS):
        about = {"adapted": options.adapt, "scored": options.score, "rows": rows}
        write_json(RESULTS, about)


def print_classes(names, scores):
    for name, score in zip(names, scores, strict=False):
        print(f"    {name:<42}{score:>8}", flush=True)


if __name__ == "__main__":
    main()
