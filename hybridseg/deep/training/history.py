"""Plot the loss, the score and the learning rate of a training."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted


def plot_history(model: Any, *, axes: Any = None) -> Any:
    """Plot the losses, the learning rate and the validation score of each epoch.

    Parameters
    ----------
    model : DeepSegmenter
        A fitted segmenter.
    axes : pair of matplotlib axes, optional
        The axes for the losses and for the score. None: those of a new figure.

    Returns
    -------
    ndarray or sequence of two matplotlib axes
        The first shows the training and validation losses, and the learning rate on an axis at the
        right. The second shows the mean IoU of the held-out images and marks the best epoch; it is
        empty if the model was fitted without ``validation=``.

    Raises
    ------
    NotFittedError
        ``model`` is not fitted.
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> from hybridseg import DeepSegmenter
    >>> from hybridseg.unary import plot_history
    >>> model = DeepSegmenter(validation=0.2)
    >>> plot_history(model.fit(images, labels))  # doctest: +SKIP
    """
    check_is_fitted(model)
    if axes is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install hybridseg[plot]") from error
        _, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    losses, scores = axes
    rows = [row for row in model.net_.history if "train_loss" in row]
    for name, label in (("train_loss", "training"), ("valid_loss", "validation")):
        _curve(losses, rows, name, label)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    rates = losses.twinx()
    rates.plot(
        [row["epoch"] for row in rows],
        [row["batches"][-1]["event_lr"] for row in rows],
        color="0.7",
        linestyle=":",
    )
    rates.set(ylabel="learning rate")
    _curve(scores, rows, "valid_mean_iou", "validation")
    best = [row for row in rows if row.get("valid_mean_iou_best")]
    if best:
        scores.plot(best[-1]["epoch"], best[-1]["valid_mean_iou"], "o", label="best")
        scores.legend()
    scores.set(xlabel="epoch", ylabel="mean IoU")
    return axes


def _curve(axes: Any, rows: list[Any], name: str, label: str) -> None:
    """Plot a value of the history over the epochs that have it."""
    known = [row for row in rows if name in row]
    if known:
        axes.plot([row["epoch"] for row in known], [row[name] for row in known], label=label)
