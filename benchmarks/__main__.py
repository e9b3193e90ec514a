"""Run one benchmark by name: ``python -m benchmarks first_call``."""

import argparse
import importlib

NAMES = {
    "accuracy": "mean field beside the exact N^2 computation and beside pydensecrf",
    "first_call": "import, compilation and first prediction, with cold and warm caches",
    "picture": "draw docs/astronaut.jpg",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=NAMES, help="; ".join(f"{k}: {v}" for k, v in NAMES.items())
    )
    importlib.import_module(f"benchmarks.{parser.parse_args().name}").main()


if __name__ == "__main__":
    main()
