"""The two methods to cut a grid, both run on every case of the kernels' benchmark.

``grid_cut`` chooses trees or branches by the excess that the first, local flows leave. Here both
solve each case on one thread, and their labels are compared. Times are in milliseconds, of solving
alone, the minimum of three after a first call. "chosen" is the choice of `grid_cut`.
"""

import time
from unittest.mock import patch

import numpy as np

from benchmarks.kernels import racing
from benchmarks.kernels.grid_cut import CONNECTIVITIES, PHOTO, costs_by_source, whole_weights
from hybridseg.inference.cuts.grid_cuts import GridNetwork, WholeWeights
from hybridseg.kernels.cuts import grid_cut
from hybridseg.pairwise.edges import EdgeGroup, edge_groups

WAYS = ("trees", "branches", "chosen")


def solve(unary: np.ndarray, whole: WholeWeights, way: str) -> tuple[float, np.ndarray]:
    """Seconds of one cut by ``way``, and its labels."""
    shape = unary.shape[:-1]
    network, excess = GridNetwork.build(whole.groups, shape, np.int64), whole.excess(unary)
    chosen = grid_cut._by_trees

    def choice(n_arcs: int, left: float) -> bool:
        return chosen(n_arcs, left) if way == "chosen" else way == "trees"

    with patch.object(grid_cut, "_by_trees", choice):
        start = time.perf_counter()
        labels = network.solve(excess)
        return time.perf_counter() - start, labels


def main() -> None:
    heads = "".join(f"{way:>10}" for way in WAYS)
    print(f"{'size':<9}{'costs':<20}{'weights':<9}{'neighbors':<12}{heads}")
    with racing.threads(1):
        for shape in racing.SIZES[:2]:
            image = racing.photo(PHOTO, shape)
            for name, unary in costs_by_source(image).items():
                for strength, weight in (("weak", 2.0), ("strong", 20.0)):
                    for n_neighbors, connectivity in CONNECTIVITIES[2].items():
                        groups = edge_groups(whole_weights(image, weight, connectivity), shape)
                        best = race(unary, groups)
                        print(
                            f"{racing.size_name(shape):<9}{name:<20}{strength:<9}{n_neighbors:<12}"
                            + "".join(f"{1e3 * seconds:>10.1f}" for seconds in best),
                            flush=True,
                        )


def race(unary: np.ndarray, groups: list[EdgeGroup]) -> list[float]:
    """The least seconds of each way; all give the same labels."""
    whole = WholeWeights.of(groups, unary.shape[:-1])
    assert whole is not None
    runs = [[solve(unary, whole, way) for _ in range(4)] for way in WAYS]
    for (_, labels), *_others in runs:
        np.testing.assert_array_equal(labels, runs[0][0][1])
    return [min(seconds for seconds, _ in taken[1:]) for taken in runs]


if __name__ == "__main__":
    main()
