"""Losses on the overlap of whole classes: Dice, Tversky, Lovász and the boundary loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from hybridseg.losses.base import (
    Loss,
    along_channels,
    as_class_weight,
    members_of,
    weighted_mean,
    weights_like,
)
from hybridseg.losses.distance_maps import signed_distances
from hybridseg.space import pixel_sides
from hybridseg.validation import check_number, check_option

Classes = str | Sequence[int]


class _ClassLoss(Loss):
    """A weighted mean of one loss for each class, over some or all classes."""

    def __init__(self, classes: Classes, per_image: bool, class_weight: ArrayLike | None) -> None:
        super().__init__()
        self.classes = _as_classes(classes, ("present", "all"))
        self.per_image = per_image
        self.class_weight = as_class_weight(class_weight)

    def _counted(self, logits: Tensor, present: Tensor) -> Tensor:
        """Return the weight of each class, ``(..., L)``, from its presence and the parameters."""
        weights = weights_like(self.class_weight, logits)
        if self.classes == "present":
            return weights * present
        return _chosen(self.classes, weights).expand(present.shape)


class SoftDice(_ClassLoss):
    """One minus the soft Dice coefficient of probabilities and target, averaged over classes.

    Each class has the same weight regardless of its size, whereas each pixel has the same weight
    in cross-entropy.

    Parameters
    ----------
    squared : bool, default=False
        Square the terms of the denominator, as in V-Net [1]_.
    smooth : float, default=1e-5
        Added to numerator and denominator. It should be above 0 with ``classes="all"``.
    classes : {"present", "all"} or sequence of int, default="present"
        The classes to average over: those in the target, all, or those given. ``range(1, L)``
        leaves out the background.
    per_image : bool, default=False
        If True, sum over the pixels of each image and average over the images. If False, sum over
        the whole batch, which contains more of the classes than a single image.
    class_weight : array-like of float, (L,), optional
        The weight of each class in the mean.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The loss of a class is ``1 - (2 sum p g + smooth) / (sum p + sum g + smooth)``, summed over the
    labeled pixels, with p the softmax of the logits and g the target, 0 or 1. With ``squared``, the
    denominator has ``sum p^2 + sum g^2``. If no pixel is labeled, no class is present and the loss
    is 0 for every choice of ``classes``.

    References
    ----------
    .. [1] F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: Fully Convolutional Neural Networks for
       Volumetric Medical Image Segmentation", 3DV, 2016, section 3.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import SoftDice
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(SoftDice()(logits, target)), 3)
    0.303
    >>> round(float(SoftDice(classes=[1])(logits, target)), 3)
    0.269
    """

    def __init__(
        self,
        *,
        squared: bool = False,
        smooth: float = 1e-5,
        classes: Classes = "present",
        per_image: bool = False,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(classes, per_image, class_weight)
        self.squared = squared
        self.smooth = float(check_number(smooth, "smooth", minimum=0))

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        both, predicted, true = overlaps(logits, target, self.per_image, squared=self.squared)
        ratio = _ratio(2 * both + self.smooth, predicted + true + self.smooth)
        return weighted_mean(1 - ratio, self._counted(logits, true > 0) * _seen(true))


class Tversky(_ClassLoss):
    """A soft Dice loss with separate weights for false positives and false negatives [1]_.

    Parameters
    ----------
    alpha, beta : float
        The weights of false positives and of false negatives. (0.5, 0.5) is Dice and (1, 1) the
        Jaccard index. With beta above alpha the network finds more small objects, at the cost of
        more false positives.
    gamma : float, default=1.0
        The exponent of each class's loss. Above 1, classes that are nearly right have less weight
        [2]_; the gamma of that paper is the inverse of this one.
    smooth, classes, per_image, class_weight
        See :class:`SoftDice`.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The loss of a class is ``(1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth))^gamma`` with
    soft counts of true positives TP, false positives FP and false negatives FN (equation 3 of
    [1]_).

    References
    ----------
    .. [1] S. Salehi, D. Erdogmus, A. Gholipour, "Tversky loss function for image segmentation using
       3D fully convolutional deep networks", MLMI, 2017.
    .. [2] N. Abraham, N. Khan, "A novel focal Tversky loss function", ISBI, 2019.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import Tversky
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(Tversky(alpha=0.3, beta=0.7)(logits, target)), 3)
    0.293
    >>> round(float(Tversky(alpha=0.3, beta=0.7, gamma=2)(logits, target)), 3)
    0.087
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        *,
        smooth: float = 1e-5,
        classes: Classes = "present",
        per_image: bool = False,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(classes, per_image, class_weight)
        self.alpha = float(check_number(alpha, "alpha", minimum=0))
        self.beta = float(check_number(beta, "beta", minimum=0))
        self.gamma = float(check_number(gamma, "gamma", minimum=0, strict=True))
        self.smooth = float(check_number(smooth, "smooth", minimum=0))

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        both, predicted, true = overlaps(logits, target, self.per_image)
        wrong = self.alpha * (predicted - both) + self.beta * (true - both)
        # This is 1 - TP / (TP + wrong), without the cancellation of a difference from one.
        loss = _ratio(wrong, both + wrong + self.smooth)
        # The clamp avoids the infinite slope at zero of powers below one.
        loss = loss.clamp(min=torch.finfo(loss.dtype).tiny) ** self.gamma
        return weighted_mean(loss, self._counted(logits, true > 0) * _seen(true))


class GeneralizedDice(Loss):
    """The generalized Dice loss, whose sums weight each class by its inverse squared size.

    Parameters
    ----------
    per_image : bool, default=False
        If True, sum over the pixels of each image and average over the images, as in the paper
        [1]_. If False, sum over the whole batch.

    Notes
    -----
    The loss is ``1 - 2 sum_l w_l sum p g / sum_l w_l sum (p + g)`` with ``w_l = 1 / (sum g)^2``
    (section 2.1 of [1]_), summed over labeled pixels. The paper does not define the weight of a
    class without a pixel; such a class is left out here.

    References
    ----------
    .. [1] C. Sudre et al., "Generalized Dice overlap as a deep learning loss function for highly
       unbalanced segmentations", DLMIA, 2017.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import GeneralizedDice
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(GeneralizedDice()(logits, target)), 3)
    0.321
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        both, predicted, true = overlaps(logits, target, self.per_image)
        present = true > 0
        weights = torch.where(present, true.clamp(min=1) ** -2, torch.zeros_like(true))
        either = (weights * (predicted + true)).sum(dim=-1)
        ratio = _ratio(2 * (weights * both).sum(dim=-1), either)
        return weighted_mean(1 - ratio, present.any(dim=-1).to(ratio))


class LovaszSoftmax(_ClassLoss):
    """The Lovász extension of the Jaccard loss, one minus the intersection over union [1]_.

    It optimizes the mean IoU directly. Use it to fine-tune after cross-entropy, or add it to
    cross-entropy.

    Parameters
    ----------
    classes, per_image, class_weight
        See :class:`SoftDice`. The paper uses "present", and sums over the batch for the mean IoU
        of a whole data set.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The errors ``|g - p|`` of each class are sorted and weighted by the gradient of the extension
    (algorithm 1 and equation 11 of [1]_).

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. Blaschko, "The Lovász-Softmax loss: a tractable surrogate
       for the optimization of the intersection-over-union measure in neural networks", CVPR, 2018.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import LovaszSoftmax
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(LovaszSoftmax()(logits, target)), 3)
    0.413
    >>> round(float(LovaszSoftmax()(100 * logits, target)), 3)  # the mean of 1 - IoU of the classes
    0.5
    """

    def __init__(
        self,
        *,
        classes: Classes = "present",
        per_image: bool = False,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(classes, per_image, class_weight)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        proba = functional.softmax(logits, dim=1).movedim(1, -1)
        losses, counted = [], []
        for image_proba, labels in _groups(proba, target, self.per_image):
            members = torch.stack([labels == i for i in range(logits.shape[1])])
            losses.append(lovasz_sum((members.to(proba) - image_proba.T).abs(), members))
            counted.append(self._counted(logits, members.any(dim=-1)) * bool(len(labels)))
        return weighted_mean(torch.stack(losses), torch.stack(counted))


class LovaszHinge(Loss):
    """The Lovász hinge loss for two classes, which applies the extension to margins [1]_.

    Parameters
    ----------
    per_image : bool, default=False
        If True, average the losses of the images. If False, compute one loss of the whole batch.

    Notes
    -----
    The score F of a pixel is the difference of its two logits. The errors
    ``max(0, 1 - F (2 t - 1))`` of class 1 are sorted and weighted by the gradient of the extension
    (section 3.1, equation 8 of [1]_). For a network with one output channel, pass
    ``torch.cat([zeros, output], dim=1)``.

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. Blaschko, "The Lovász-Softmax loss: a tractable surrogate
       for the optimization of the intersection-over-union measure in neural networks", CVPR, 2018.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import LovaszHinge
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(LovaszHinge()(logits, target)), 3)
    1.0
    >>> correct = torch.tensor([[[[2.0, 0.0, 0.0]], [[0.0, 2.0, 2.0]]]])  # margins of at least 1
    >>> float(LovaszHinge()(correct, target))
    0.0
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[1] != 2:
            raise ValueError(
                f"logits has {logits.shape[1]} channels; LovaszHinge expects two classes: use "
                f"LovaszSoftmax."
            )
        scores = logits[:, 1] - logits[:, 0]
        losses, counted = [], []
        for margins, labels in _groups(scores, target, self.per_image):
            errors = functional.relu(1 - margins * (2 * labels - 1))
            losses.append(lovasz_sum(errors[None], labels[None] == 1)[0])
            counted.append(scores.new_tensor(float(len(labels) > 0)))
        return weighted_mean(torch.stack(losses), torch.stack(counted))


class BoundaryDistance(Loss):
    """The boundary loss: probabilities times signed distances to the boundary of the target [1]_.

    It measures distances between boundaries, whereas overlap losses measure areas. Alone it is
    lowest for an empty prediction. Add it to another loss, with a weight that grows from 0.01.

    Parameters
    ----------
    classes : "all" or sequence of int, default="all"
        The classes to average over: all, or those given. The paper uses the foreground, ``[1]``.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis, in any unit. The loss measures
        distances in pixels of the finest axis. Default: 1.
    class_weight : array-like of float, (L,), optional
        The weight of each class in the mean.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The loss is the mean of ``p_l phi_l`` over labeled pixels and classes (equation 5 of [1]_), with
    p the softmax of the logits and phi the map of :func:`hybridseg.losses.signed_distances`. Each
    call of the loss computes the map on the CPU. The loss is negative for a good segmentation.

    References
    ----------
    .. [1] H. Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL, 2019.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import BoundaryDistance, SoftDice
    >>> logits = torch.tensor([[[[2.0, 1.0, -1.0]], [[0.0, 0.0, 2.0]]]])
    >>> target = torch.tensor([[[0, 1, 1]]])
    >>> round(float(BoundaryDistance(classes=[1])(logits, target)), 3)
    -0.278
    >>> loss = SoftDice()(logits, target) + 0.01 * BoundaryDistance(classes=[1])(logits, target)
    >>> round(float(loss), 3)
    0.3
    """

    def __init__(
        self,
        classes: Classes = "all",
        *,
        spacing: Sequence[float] | None = None,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        self.classes = _as_classes(classes, ("all",))
        self.spacing = spacing
        self.class_weight = as_class_weight(class_weight)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        n_classes = logits.shape[1]
        sides = pixel_sides(self.spacing, target.ndim - 1)
        maps = torch.stack(
            [
                torch.from_numpy(signed_distances(labels.cpu().numpy(), n_classes, spacing=sides))
                for labels in target
            ]
        )
        counted = _chosen(self.classes, weights_like(self.class_weight, logits))
        weights = along_channels(counted, logits) * (target >= 0).unsqueeze(1)
        return weighted_mean(functional.softmax(logits, dim=1) * maps.to(logits), weights)


def overlaps(
    logits: Tensor, target: Tensor, per_image: bool, *, squared: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums over labeled pixels of p g, of p and of g.

    Each is ``(L,)``, or ``(B, L)`` for ``per_image``.
    """
    members = members_of(logits, target)
    proba = functional.softmax(logits, dim=1) * (target >= 0).unsqueeze(1)
    axes = [axis for axis in range(logits.ndim) if axis != 1 and (axis or not per_image)]
    both = (proba * members).sum(dim=axes)
    predicted = (proba.square() if squared else proba).sum(dim=axes)
    return both, predicted, members.sum(dim=axes).to(proba)


def lovasz_sum(errors: Tensor, members: Tensor) -> Tensor:
    """Return the Lovász extension ``(L,)`` of the Jaccard loss at errors ``(L, n)``.

    ``members`` (L, n) marks the pixels of each class. The gradient is algorithm 1 of [1]_. Each
    difference of consecutive Jaccard losses has been simplified by hand, so that no digits cancel.

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. Blaschko, "The Lovász-Softmax loss: a tractable surrogate
       for the optimization of the intersection-over-union measure in neural networks", CVPR, 2018.
    """
    if errors.shape[-1] == 0:
        return errors.sum(dim=-1)
    errors, order = errors.sort(dim=-1, descending=True, stable=True)
    members = members.gather(-1, order)
    hits = members.cumsum(dim=-1)
    total = hits[:, -1:]
    union = total + torch.arange(1, errors.shape[-1] + 1, device=hits.device) - hits
    at_member = 1 / union.to(errors)
    elsewhere = (total - hits).to(errors) / (union.to(errors) * (union - 1).clamp(min=1))
    gradient = torch.where(members, at_member, elsewhere)
    gradient[:, :1] += (total == 0).to(gradient)  # without members one false positive costs 1
    return (errors * gradient.detach()).sum(dim=-1)


def _groups(values: Tensor, target: Tensor, per_image: bool) -> list[tuple[Tensor, Tensor]]:
    """Return the values and labels of the labeled pixels, for each image or for the whole batch."""
    pairs = zip(values, target, strict=True) if per_image else [(values, target)]
    return [(found[labels >= 0], labels[labels >= 0]) for found, labels in pairs]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; the denominator is at least the smallest positive number."""
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)


def _seen(true: Tensor) -> Tensor:
    """Return 1 for each batch or image that has a labeled pixel, else 0."""
    return (true.sum(dim=-1, keepdim=True) > 0).to(true)


def _as_classes(classes: Classes, names: tuple[str, ...]) -> str | tuple[int, ...]:
    if isinstance(classes, str):
        checked: str = check_option(classes, "classes", names)
        return checked
    indices = tuple(
        int(check_number(index, "a number of classes", minimum=0, integer=True))
        for index in classes
    )
    if not indices:
        raise ValueError(f"classes={classes!r} is empty; expected at least one class index.")
    return indices


def _chosen(classes: str | tuple[int, ...], weights: Tensor) -> Tensor:
    """Return the weights with 0 for all classes that are not in ``classes``."""
    if isinstance(classes, str):
        return weights
    if max(classes) >= len(weights):
        raise ValueError(
            f"classes={classes} holds {max(classes)}, but logits has {len(weights)} channels; "
            f"expected class indices 0..n_classes - 1."
        )
    out = torch.zeros_like(weights)
    out[list(classes)] = weights[list(classes)]
    return out
