"""The time of one step of learning: marginals forward, and the gradient backward.

``python -m benchmarks learning_step`` times 5 iterations on a photograph of 321 x 481 pixels with
21 labels. It prints, for one thread and for two, the least of some repetitions: making the
lattices, mean field as it predicts, mean field that records, the gradient by costs, weights and
compatibility, and with the gradient by features and widths besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numba
import numpy as np
from skimage import data
from skimage.transform import resize

from benchmarks.machine import describe_machine
from hybridseg.inference.mean_field.dense_gradient import DenseTape, last_marginals
from hybridseg.kernels.dense.dense_filter import embed
from hybridseg.pairwise import BilateralKernel, GaussianKernel

SHAPE, N_LABELS, N_ITER, REPEATS = (321, 481), 21, 5, 15
KERNELS = (GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0))


def least(task: Callable[[], object]) -> float:
    """Return the least time of some calls, in milliseconds."""
    task()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        task()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def time_parts() -> dict[str, float]:
    """Return the time of each part of a step, in milliseconds."""
    colors = (resize(data.astronaut(), SHAPE) * 255).astype(np.float32)
    features = [kernel.embed(colors) for kernel in KERNELS]
    n_pixels = len(features[0])
    costs, given = (
        np.random.default_rng(0).standard_normal((2, n_pixels, N_LABELS)).astype(np.float32)
    )
    responses = [np.eye(N_LABELS) * kernel.weight for kernel in KERNELS]
    dense = embed(features, n_pixels)
    tape = DenseTape.record(dense, costs, responses, N_ITER)
    gradient = tape.gradient(given, corners=True)
    tasks: dict[str, Callable[[], object]] = {
        "lattices": lambda: embed(features, n_pixels),
        "forward": lambda: last_marginals(dense, costs, responses, N_ITER),
        "recorded": lambda: DenseTape.record(dense, costs, responses, N_ITER),
        "backward": lambda: tape.gradient(given),
        "backward, features": lambda: (
            tape.gradient(given, corners=True),
            [gradient.of_features(dense, k, f) for k, f in enumerate(features)],
        ),
    }
    return {name: least(task) for name, task in tasks.items()}


def main() -> None:
    """Time the parts of a step for one thread and for two, and print them."""
    print({name: describe_machine()[name] for name in ("processor", "cores", "numba")})
    for n_threads in range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(n_threads)
        found = time_parts()
        print(f"{n_threads} threads:", ", ".join(f"{n} {t:.1f} ms" for n, t in found.items()))
        step = found["recorded"] + found["backward"]
        whole = found["lattices"] + found["recorded"] + found["backward, features"]
        print(
            f"  a step {step:.0f} ms, {step / found['forward']:.2f} times the forward pass; with "
            f"widths and new lattices {whole:.0f} ms, "
            f"{whole / (found['forward'] + found['lattices']):.2f} times"
        )


if __name__ == "__main__":
    main()
