"""Losses that sum over pixels: cross-entropy, its weighted forms, the focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from hybridseg.losses.base import Loss, along_channels, as_class_weight, weighted_mean, weights_like
from hybridseg.losses.distance_maps import gap_weights
from hybridseg.space import Width, width_in_pixels
from hybridseg.validation import check_number

#: The index that torch's loss ignores; any negative number will do.
_VOID = -100


class CrossEntropy(Loss):
    """Mean cross-entropy over the labeled pixels.

    Parameters
    ----------
    class_weight : array-like of float, (L,), optional
        The weight of a pixel of each class; the mean is over the sum of these weights. None:
        all pixels alike. :func:`hybridseg.losses.count_classes` and the functions beside
        it compute weights from label maps.
    label_smoothing : float
        In [0, 1): this share of each pixel's target is spread evenly over all classes, so that the
        network is not drawn to certainty. 0.1 is usual.

    Notes
    -----
    ``-sum_i w[t_i] log p_i[t_i] / sum_i w[t_i]``, with p the softmax of the logits and i over the
    labeled pixels. With label smoothing s it counts ``1 - s``, and
    ``-sum_i sum_c w[c] log p_i[c] / sum_i w[t_i]`` counts ``s / L``, as in
    :class:`torch.nn.CrossEntropyLoss`.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import CrossEntropy
    >>> logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, -1]]])
    >>> round(float(CrossEntropy()(logits, target)), 4)
    0.6931
    """

    label_smoothing: float = 0.0

    def __init__(
        self, class_weight: ArrayLike | None = None, *, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.class_weight = as_class_weight(class_weight)
        check_number(label_smoothing, "label_smoothing", minimum=0)
        check_number(1 - label_smoothing, "1 - label_smoothing", minimum=0, strict=True)
        if label_smoothing:  # so that those without are told as before
            self.label_smoothing = float(label_smoothing)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weights, smoothing = self._pixel_weights(logits, target), self.label_smoothing
        loss = weighted_mean(pixel_costs(logits, target), weights)
        if not smoothing:
            return loss
        shares = along_channels(weights_like(self.class_weight, logits), logits)
        costs = -(torch.log_softmax(logits, dim=1) * shares).sum(dim=1)
        total = weights.sum()
        spread = (costs * (target >= 0)).sum() / torch.where(total > 0, total, 1)
        return (1 - smoothing) * loss + smoothing / logits.shape[1] * spread * (total > 0)

    def normalizer(self, logits: Tensor, target: Tensor) -> Tensor:
        """The divisor of the sum over pixels: the sum of their weights."""
        return self._pixel_weights(logits, target).sum()

    def _pixel_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        """The weight of each pixel, ``(B, *spatial)``; 0 where void."""
        labeled = (target >= 0).to(logits)
        if self.class_weight is None:
            return labeled
        return weights_like(self.class_weight, logits)[target.clamp(min=0)] * labeled


class Focal(CrossEntropy):
    """Cross-entropy in which well classified pixels count less.

    Parameters
    ----------
    gamma : float
        At least 0; 0 is cross-entropy. The paper's best is 2: a pixel with p = 0.9 counts a
        hundredth.
    class_weight : array-like of float, (L,), optional
        The paper's alpha; see :class:`CrossEntropy`.

    Notes
    -----
    ``-sum_i w[t_i] (1 - p_i[t_i])^gamma log p_i[t_i] / sum_i w[t_i]``: equation 5 of [1]_ with
    the softmax in place of the sigmoid. For two classes with logits (0, x) both are the same.

    References
    ----------
    .. [1] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar: Focal Loss for Dense Object
       Detection. ICCV 2017.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import Focal
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> [round(float(Focal(gamma)(logits, target)), 3) for gamma in (0, 1, 2)]
    [0.496, 0.326, 0.235]
    """

    def __init__(self, gamma: float = 2.0, class_weight: ArrayLike | None = None) -> None:
        super().__init__(class_weight)
        self.gamma = float(check_number(gamma, "gamma", minimum=0))

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        costs = pixel_costs(logits, target)
        # 1 - p; a power below one has an infinite slope at zero
        missing = (-torch.expm1(-costs)).clamp(min=torch.finfo(costs.dtype).tiny)
        weights = self._pixel_weights(logits, target)
        return weighted_mean(missing**self.gamma * costs, weights)


class BoundaryWeightedCrossEntropy(CrossEntropy):
    """Cross-entropy in which pixels near a boundary between classes count most.

    Boundaries are a small part of the pixels and hold most of the errors.

    Parameters
    ----------
    interior_weight : float
        The weight of the other pixels, in [0, 1], where that of boundaries is 1.
    width : int
        A pixel belongs to a boundary where a pixel of another class is at most this many pixels
        away (along each axis, so diagonals count as one). Void pixels make no boundary.
    class_weight : array-like of float, (L,), optional
        Multiplies the weights; see :class:`CrossEntropy`.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import BoundaryWeightedCrossEntropy
    >>> target = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    >>> wrong_inside = torch.zeros(1, 2, 1, 6)
    >>> wrong_inside[0, 1, 0, 0] = 3
    >>> wrong_at_boundary = wrong_inside.roll(2, dims=-1)
    >>> loss = BoundaryWeightedCrossEntropy(interior_weight=0.1)
    >>> [round(float(loss(logits, target)), 3) for logits in (wrong_inside, wrong_at_boundary)]
    [0.791, 1.675]
    """

    def __init__(
        self,
        interior_weight: float = 0.1,
        width: int = 1,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(class_weight)
        self.interior_weight = float(
            check_number(interior_weight, "interior_weight", minimum=0, maximum=1)
        )
        self.width = int(check_number(width, "width", minimum=1, integer=True))

    def _pixel_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = super()._pixel_weights(logits, target)
        interior = ~near_boundary(target, self.width)
        return torch.where(interior, weights * self.interior_weight, weights)


class GapWeightedCrossEntropy(CrossEntropy):
    """U-Net's cross-entropy, which makes the network learn the gaps between touching cells.

    Parameters
    ----------
    gap_weight : float
        The paper's w0: the additional weight of a background pixel between two cells that nearly
        touch.
    sigma : "auto" or float
        The distance of cells up to which a gap counts, in pixels (with spacing, in its unit).
        "auto" takes 5 pixels of the finest axis.
    background : int
        The class index of the background. Cells are the connected components of each other class.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.
    class_weight : array-like of float, (L,), optional
        The paper's w_c, which balances the classes; see :class:`CrossEntropy`.

    Notes
    -----
    ``w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))`` on the background (equation 2 of [1]_), and
    w_c inside cells, with d1 and d2 the distances to the nearest and the second nearest cell; see
    :func:`hybridseg.losses.gap_weights`. The map is computed on the CPU whenever the
    loss is called.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image
       Segmentation. MICCAI 2015.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import GapWeightedCrossEntropy
    >>> target = torch.tensor([[[1, 1, 0, 1, 1]]])  # a gap of one pixel between two cells
    >>> merged = torch.zeros(1, 2, 1, 5)
    >>> merged[0, 1] = 3
    >>> [round(float(GapWeightedCrossEntropy(w0)(merged, target)), 3) for w0 in (0, 10)]
    [0.649, 2.205]
    """

    def __init__(
        self,
        gap_weight: float = 10.0,
        sigma: Width = "auto",
        background: int = 0,
        spacing: Sequence[float] | None = None,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(class_weight)
        self.gap_weight = float(check_number(gap_weight, "gap_weight", minimum=0))
        width_in_pixels(sigma, "sigma", None, 2, auto=1.0, zero=False)  # checks it
        self.sigma = sigma
        self.background = int(check_number(background, "background", minimum=0, integer=True))
        self.spacing = spacing

    def _pixel_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        maps = [
            gap_weights(
                labels.cpu().numpy(),
                gap_weight=self.gap_weight,
                sigma=self.sigma,
                background=self.background,
                spacing=self.spacing,
            )
            for labels in target
        ]
        extra = torch.stack([torch.from_numpy(found) for found in maps]).to(logits)
        return super()._pixel_weights(logits, target) + extra


def pixel_costs(logits: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy of each pixel, ``(B, *spatial)``; 0 where void."""
    # torch's loss on the CPU cannot go backward through channels-last memory. Without a reduction
    # it is deterministic on GPUs as well.
    return functional.cross_entropy(
        logits.contiguous(),
        target.masked_fill(target < 0, _VOID),
        ignore_index=_VOID,
        reduction="none",
    )


def near_boundary(target: Tensor, width: int = 1) -> Tensor:
    """Whether another class is at most ``width`` pixels away along each axis; void is none.

    Parameters
    ----------
    target : Tensor of int, (B, *spatial)
    width : int

    Returns
    -------
    Tensor of bool, (B, *spatial)
        False where void.
    """
    void = target < 0
    values = target.double()
    highest = _highest_near(values.masked_fill(void, -torch.inf), width)
    lowest = -_highest_near((-values).masked_fill(void, -torch.inf), width)
    return (highest != lowest) & ~void


def _highest_near(values: Tensor, width: int) -> Tensor:
    """The maximum over windows of ``2 * width + 1`` pixels a side, one axis after the other."""
    for axis in range(1, values.ndim):
        lines = values.movedim(axis, -1)
        found = functional.max_pool1d(
            lines.reshape(1, -1, lines.shape[-1]), 2 * width + 1, stride=1, padding=width
        )
        values = found.reshape(lines.shape).movedim(-1, axis)
    return values
