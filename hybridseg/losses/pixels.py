"""Losses that are means over pixels: cross-entropy, its weighted forms and the focal loss."""

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

#: The class index of void pixels in calls of torch; any negative number could be used.
_VOID = -100


class CrossEntropy(Loss):
    """The mean cross-entropy of the labeled pixels.

    Parameters
    ----------
    class_weight : array-like of float, (L,), optional
        The weight of the pixels of each class; the mean is divided by the sum of these weights.
        Default: all pixels have the same weight. :func:`hybridseg.losses.count_classes` and the
        functions beside it compute weights from label maps.
    label_smoothing : float, default=0.0
        In [0, 1): this fraction of each pixel's target is spread evenly over all classes, so that
        the network becomes less confident. 0.1 is usual.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The loss is ``-sum_i w[t_i] log p_i[t_i] / sum_i w[t_i]``, with p the softmax of the logits, t
    the target and i over the labeled pixels. With label smoothing s, it is ``1 - s`` times this
    plus ``s / L`` times ``-sum_i sum_c w[c] log p_i[c] / sum_i w[t_i]``, as in
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
        if label_smoothing:  # repr shows the parameter only if it is set
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
        """Return the sum of the pixel weights, which is the divisor of the sum over pixels."""
        return self._pixel_weights(logits, target).sum()

    def _pixel_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weight of each pixel, ``(B, *spatial)``; void pixels have weight 0."""
        labeled = (target >= 0).to(logits)
        if self.class_weight is None:
            return labeled
        return weights_like(self.class_weight, logits)[target.clamp(min=0)] * labeled


class Focal(CrossEntropy):
    """Cross-entropy with less weight on pixels that are already classified well [1]_.

    Parameters
    ----------
    gamma : float, default=2.0
        At least 0; 0 is cross-entropy. The paper's best value is 2: a pixel with p = 0.9 then has
        a hundredth of its weight in cross-entropy.
    class_weight : array-like of float, (L,), optional
        The paper's alpha; see :class:`CrossEntropy`.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The loss is ``-sum_i w[t_i] (1 - p_i[t_i])^gamma log p_i[t_i] / sum_i w[t_i]``: equation 5 of
    [1]_ with a softmax instead of the sigmoid. For two classes with logits (0, x) both are equal.

    References
    ----------
    .. [1] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal Loss for Dense Object
       Detection", ICCV, 2017.

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
        # This is 1 - p. The clamp avoids the infinite slope at zero of powers below one.
        missing = (-torch.expm1(-costs)).clamp(min=torch.finfo(costs.dtype).tiny)
        weights = self._pixel_weights(logits, target)
        return weighted_mean(missing**self.gamma * costs, weights)


class BoundaryWeightedCrossEntropy(CrossEntropy):
    """Cross-entropy with more weight on pixels near a boundary between classes.

    Only a small fraction of the pixels is near a boundary, but most errors are there.

    Parameters
    ----------
    interior_weight : float, default=0.1
        The weight of pixels that are not near a boundary, in [0, 1]. Pixels near one have weight 1.
    width : int, default=1
        A pixel is near a boundary if a pixel of another class is at most this many pixels away
        along each axis (so a diagonal step counts as one). Void pixels make no boundary.
    class_weight : array-like of float, (L,), optional
        Multiplies these weights; see :class:`CrossEntropy`.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

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
    """U-Net's cross-entropy, with more weight on the background between touching cells [1]_.

    Parameters
    ----------
    gap_weight : float, default=10.0
        The paper's ``w0``: the additional weight of a background pixel between two cells that
        nearly touch.
    sigma : "auto" or float, default="auto"
        The scale of the sum of the distances to both cells, in pixels, or in the unit of
        ``spacing``: wider gaps get less weight. "auto" is 5 pixels of the finest axis.
    background : int, default=0
        The class index of the background. Cells are the connected components of each other class.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.
    class_weight : array-like of float, (L,), optional
        The paper's ``w_c``, which balances the classes; see :class:`CrossEntropy`.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The weight is ``w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))`` on the background (equation 2 of
    [1]_) and ``w_c`` inside cells, with d1 and d2 the distances to the nearest and the second
    nearest cell; see :func:`hybridseg.losses.gap_weights`. Each call of the loss computes the map
    on the CPU.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
       Segmentation", MICCAI, 2015.

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
        width_in_pixels(sigma, "sigma", None, 2, auto=1.0, zero=False)  # raises if it is invalid
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
    """Return the cross-entropy of each pixel, ``(B, *spatial)``; it is 0 at void pixels."""
    # The backward pass of torch's loss on the CPU fails for channels-last memory. Without a
    # reduction, the loss is deterministic on GPUs too.
    return functional.cross_entropy(
        logits.contiguous(),
        target.masked_fill(target < 0, _VOID),
        ignore_index=_VOID,
        reduction="none",
    )


def near_boundary(target: Tensor, width: int = 1) -> Tensor:
    """Return whether a pixel of another class is at most ``width`` pixels away along each axis.

    Parameters
    ----------
    target : Tensor of int, (B, *spatial)
        Class indices; negative is void and counts as no class.
    width : int, default=1

    Returns
    -------
    Tensor of bool, (B, *spatial)
        False at void pixels.
    """
    void = target < 0
    values = target.double()
    highest = _highest_near(values.masked_fill(void, -torch.inf), width)
    lowest = -_highest_near((-values).masked_fill(void, -torch.inf), width)
    return (highest != lowest) & ~void


def _highest_near(values: Tensor, width: int) -> Tensor:
    """Return the maximum over windows of ``2 * width + 1`` pixels along each spatial axis."""
    for axis in range(1, values.ndim):
        lines = values.movedim(axis, -1)
        found = functional.max_pool1d(
            lines.reshape(1, -1, lines.shape[-1]), 2 * width + 1, stride=1, padding=width
        )
        values = found.reshape(lines.shape).movedim(-1, axis)
    return values
