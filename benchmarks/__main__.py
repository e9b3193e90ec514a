"""Run one benchmark by name: ``python -m benchmarks first_call``."""

import argparse
import importlib
import sys

NAMES = {
    "accuracy": "mean field compared with the exact N^2 computation and with pydensecrf",
    "adaptation": "networks adapted to night, fog and noise (has options)",
    "boundary": "labels near boundaries, corrected by a network (has options)",
    "classifiers": "classifiers for pixels; writes docs/classifiers.md (has options)",
    "curves": "learning curves of AutoHybrid and of single methods (has options)",
    "cut_ways": "grid cuts by trees and by branches, for every case",
    "defaults": "gains of refiners without parameters; writes docs/defaults.md (has options)",
    "first_call": "import, compilation and first prediction, with cold and warm caches",
    "grabcut": "objects from lasso trimaps, with color contrast and learned edges (has options)",
    "harm": "learned dense CRFs on eight sets, for what they harm (has options)",
    "kernels": "every kernel and its peers; writes docs/performance.md (has options)",
    "latency": "forward pass of every network and its peers (has options)",
    "learning": "learned energies and controls on the costs of a published network (has options)",
    "learning_step": "one step of learning: marginals forward, the gradient backward",
    "readme_image": "draw docs/astronaut.jpg",
    "pretrained": "networks with published weights on CamVid and PASCAL VOC",
    "reliability": "attempts to break the library; writes docs/reliability.md (has options)",
    "training": "networks trained on real data; writes docs/networks.md (has options)",
}
#: The benchmarks that have options.
WITH_OPTIONS = (
    *("adaptation", "boundary", "classifiers", "curves", "defaults", "grabcut", "harm"),
    *("kernels", "latency", "learning", "reliability", "training"),
)
#: The modules of benchmarks that are not named like them.
MODULES = {"harm": "learning.harm"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=NAMES, help="; ".join(f"{k}: {v}" for k, v in NAMES.items())
    )
    name = parser.parse_args(sys.argv[1:2]).name
    benchmark = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}")
    if name in WITH_OPTIONS:
        benchmark.main(sys.argv[2:])
    else:
        parser.parse_args()
        benchmark.main()


if __name__ == "__main__":
    main()
