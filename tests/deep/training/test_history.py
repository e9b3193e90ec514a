"""The curves of a training."""

import numpy as np
import pytest

from hybridseg.unary import plot_history
from tests.deep.subjects import IMAGES, LABELS, quick

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_curves():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    model = quick(validation=(IMAGES, LABELS)).fit(IMAGES, LABELS)
    losses, scores = plot_history(model)
    found = losses.get_lines()[0].get_ydata()
    np.testing.assert_allclose(found, model.net_.history[:, "train_loss"])
    np.testing.assert_allclose(
        scores.get_lines()[0].get_ydata(), model.net_.history[:, "valid_mean_iou"]
    )
    plt.close("all")
