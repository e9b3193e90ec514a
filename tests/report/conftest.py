import numpy as np
import pytest

from hybridseg.report import Experiment, ImageResult, Row, average_rows


def rows_of(*scores):
    """One row for each (unary, refiner, mean IoU, boundary IoU)."""
    return tuple(
        Row(unary, refiner, m, b, 1.0, 0.25, 0.5 if refiner else 0.0)
        for unary, refiner, m, b in scores
    )


@pytest.fixture
def experiment():
    """Two images, unaries and refiners; one refiner is worse on one image and on average."""
    tables = (
        rows_of(
            ("Forest", "", 0.70, 0.40),
            ("Forest", "DenseCRF", 0.80, 0.50),
            ("Forest", "GraphCut", 0.75, 0.45),
            ("Net & <co>", "", 0.60, 0.30),
            ("Net & <co>", "DenseCRF", 0.50, 0.35),
            ("Net & <co>", "GraphCut", 0.65, 0.40),
        ),
        rows_of(
            ("Forest", "", 0.50, 0.20),
            ("Forest", "DenseCRF", 0.60, 0.30),
            ("Forest", "GraphCut", 0.50, 0.25),
            ("Net & <co>", "", 0.40, 0.20),
            ("Net & <co>", "DenseCRF", 0.30, 0.10),
            ("Net & <co>", "GraphCut", 0.45, 0.25),
        ),
    )
    rng = np.random.default_rng(0)
    images = []
    for name, rows in zip(("cat", "cup"), tables, strict=True):
        truth = rng.integers(-1, 3, (20, 30)).astype(np.int32)
        images.append(
            ImageResult(
                name=name,
                image=rng.integers(0, 256, (20, 30, 3)).astype(np.uint8),
                truth=truth,
                class_names={0: "background", 1: "fur <soft>", 2: "tail"},
                rows=rows,
                predictions=tuple(np.maximum(truth, 0) for _ in rows),
                scribbles=np.where(truth == 1, 1, -1),
            )
        )
    return Experiment(
        title="A title <here>",
        protocol=("What was done.",),
        rows=average_rows(tables),
        averaging="mean over 2 images",
        images=tuple(images),
        remarks=("Something is missing: pip install hybridseg[deep]",),
        first_call_seconds={"First call: GraphCut": 1.5},
        settings={"DenseCRF": "DenseCRF(n_iter=5)"},
        environment={"numpy": "2.0"},
        wall_seconds=12.0,
    )
