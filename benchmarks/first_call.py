"""The time of a first prediction: importing, compiling (or loading the cache), computing.

Each line is a fresh process. "cold" starts with an empty compilation cache, "cached" with the one
that the cold process left. "again" is the same call a second time in the process, so the
difference of the last two columns is what compiling (or loading) costs. The image is
scikit-image's coffee (400 x 600), with two labels.
"""

import json
import os
import subprocess
import sys
import tempfile

CHILD = """
import json, sys, time
start = time.perf_counter()
from hybridseg import {name}, Scene
imported = time.perf_counter()
import numpy as np
from skimage.data import coffee
image = coffee()
brown = image[..., 0].astype(float) - image[..., 2]
scene = Scene.from_logits(image, np.stack([brown, 60 - brown], axis=-1) / 20)
times = [imported - start]
for _ in range(2):
    begin = time.perf_counter()
    {name}().predict([scene.replace()])
    times.append(time.perf_counter() - begin)
print(json.dumps(times))
"""


def measure(name: str, cache: str) -> list[float]:
    """Seconds of importing, of the first and of the second prediction, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(name=name)],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    print(f"{'estimator':<12}{'cache':<9}{'import s':>10}{'first s':>10}{'again s':>10}")
    for name in ("DenseCRF", "GraphCut"):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                times = measure(name, cache)
                print(f"{name:<12}{state:<9}" + "".join(f"{t:>10.2f}" for t in times), flush=True)


if __name__ == "__main__":
    main()
