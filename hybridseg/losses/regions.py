"""Losses that score the overlap of whole classes: Dice, Tversky, the Jaccard index's extension."""

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
    """The weighted mean of a loss of each class, over some of the classes."""

    def __init__(self, classes: Classes, per_image: bool, class_weight: ArrayLike | None) -> None:
        super().__init__()
        self.classes = _as_classes(classes, ("present", "all"))
        self.per_image = per_image
        self.class_weight = as_class_weight(class_weight)

    def _counted(self, logits: Tensor, present: Tensor) -> Tensor:
        """The weight of each class, ``(..., L)``, by its presence and the parameters."""
        weights = weights_like(self.class_weight, logits)
        if self.classes == "present":
            return weights * present
        return _chosen(self.classes, weights).expand(present.shape)


class SoftDice(_ClassLoss):
    """One less the Dice coefficient of probabilities and truth, a mean over classes.

    It weighs classes alike, however few their pixels, where cross-entropy weighs pixels alike.

    Parameters
    ----------
    squared : bool
        Squares in the denominator, as V-Net has them [1]_.
    smooth : float
        Added to numerator and denominator; with ``classes="all"`` it should be above 0.
    classes : {"present", "all"} or sequence of int
        The mean is over the classes that the target holds; over all; or over those given, such as
        ``range(1, L)``, which leaves out the background.
    per_image : bool
        Sum over the pixels of each image alone, and take the mean over images as well; else over
        the whole batch, where classes are absent more rarely.
    class_weight : array-like of float, (L,), optional
        The weight of each class in the mean.

    Notes
    -----
    ``1 - (2 sum p g + smooth) / (sum p + sum g + smooth)``, sums over the labeled pixels, p the
    softmax of the logits and g the truth, 0 or 1; squared: ``sum p^2 + sum g^2``. Where no pixel
    is labeled, classes count as absent for ``classes="present"``, and the loss is 0 for all.

    References
    ----------
    .. [1] F. Milletari, N. Navab, S.-A. Ahmadi: V-Net: Fully Convolutional Neural Networks for
       Volumetric Medical Image Segmentation. 3DV 2016, section 3.

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
    """The Dice loss with separate weights of false positives and false negatives.

    Parameters
    ----------
    alpha, beta : float
        The costs of false positives and of false negatives. (0.5, 0.5) is Dice, (1, 1) the
        Jaccard index; beta above alpha finds small objects at the cost of false alarms.
    gamma : float
        Power of each class's loss; above 1, classes that are nearly right count less [2]_ (whose
        gamma is this one's inverse).
    smooth, classes, per_image, class_weight
        See :class:`SoftDice`.

    Notes
    -----
    ``(1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth))^gamma`` with soft counts (equation
    3 of [1]_).

    References
    ----------
    .. [1] S. Salehi, D. Erdogmus, A. Gholipour: Tversky loss function for image segmentation using
       3D fully convolutional deep networks. MLMI 2017.
    .. [2] N. Abraham, N. Khan: A novel focal Tversky loss function. ISBI 2019.

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
        # 1 - TP / (TP + wrong), without the difference of two numbers that are nearly one
        loss = _ratio(wrong, both + wrong + self.smooth)
        # a power below one has an infinite slope at zero
        loss = loss.clamp(min=torch.finfo(loss.dtype).tiny) ** self.gamma
        return weighted_mean(loss, self._counted(logits, true > 0) * _seen(true))


class GeneralizedDice(Loss):
    """The Dice loss of all classes together, each weighed by its inverse squared size.

    Parameters
    ----------
    per_image : bool
        Sum over the pixels of each image alone and take the mean over images, as the paper does;
        else over the whole batch.

    Notes
    -----
    ``1 - 2 sum_l w_l sum p g / sum_l w_l sum (p + g)`` with ``w_l = 1 / (sum g)^2`` (section 2.1
    of [1]_), sums over labeled pixels. The paper does not say what a class without a pixel is
    worth; here it is left out.

    References
    ----------
    .. [1] C. Sudre et al.: Generalized Dice overlap as a deep learning loss function for highly
       unbalanced segmentations. DLMIA 2017.

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
    """The convex extension of one less the Jaccard index (intersection over union).

    Trains for the mean IoU itself. Best for fine-tuning after, or beside, cross-entropy.

    Parameters
    ----------
    classes, per_image, class_weight
        See :class:`SoftDice`. The paper's choices are "present" and, for whole data sets' mean
        IoU, the batch.

    Notes
    -----
    Errors ``|g - p|`` of each class are sorted and weighed by the gradient of the extension
    (algorithm 1 and equation 11 of [1]_).

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. Blaschko: The Lovasz-Softmax loss: a tractable surrogate
       for the optimization of the intersection-over-union measure in neural networks. CVPR 2018.

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
    """The hinge form of :class:`LovaszSoftmax` for two classes, which sees margins.

    Parameters
    ----------
    per_image : bool
        The mean over images of each one's loss; else one loss of the whole batch.

    Notes
    -----
    The score F of a pixel is the difference of its two logits; errors ``max(0, 1 - F (2 t - 1))``
    of the class 1 are sorted and weighed (section 3.1 of the paper, equation 8). A network with
    one output gives ``torch.cat([zeros, output], dim=1)``.

    References
    ----------
    .. [1] M. Berman, A. Rannen Triki, M. Blaschko: The Lovasz-Softmax loss. CVPR 2018.

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
                f"logits have {logits.shape[1]} channels, but LovaszHinge is for two classes; "
                f"take LovaszSoftmax."
            )
        scores = logits[:, 1] - logits[:, 0]
        losses, counted = [], []
        for margins, labels in _groups(scores, target, self.per_image):
            errors = functional.relu(1 - margins * (2 * labels - 1))
            losses.append(lovasz_sum(errors[None], labels[None] == 1)[0])
            counted.append(scores.new_tensor(float(len(labels) > 0)))
        return weighted_mean(torch.stack(losses), torch.stack(counted))


class BoundaryDistance(Loss):
    """The boundary loss of Kervadec: probabilities times signed distances to the truth's boundary.

    It measures distances between boundaries, where losses of overlap measure areas. By itself it is
    lowest for an empty prediction: add it to another loss, with a weight that grows from 0.01.

    Parameters
    ----------
    classes : "all" or sequence of int
        The mean is over all classes, or over those given; the paper's is over the foreground,
        ``[1]``.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis, in any unit: the loss counts in
        pixels of the finest axis. Default: 1.
    class_weight : array-like of float, (L,), optional
        The weight of each class in the mean.

    Notes
    -----
    The mean over labeled pixels and classes of ``p_l phi_l`` (equation 5 of [1]_), with phi the
    map of :func:`hybridseg.losses.signed_distances`, which is computed on the CPU
    whenever the loss is called. It is negative where the segmentation is good.

    References
    ----------
    .. [1] H. Kervadec et al.: Boundary loss for highly unbalanced segmentation. MIDL 2019.

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
    """Sums over labeled pixels of p g, of p and of g: ``(L,)``, or ``(B, L)`` for each image."""
    members = members_of(logits, target)
    proba = functional.softmax(logits, dim=1) * (target >= 0).unsqueeze(1)
    axes = [axis for axis in range(logits.ndim) if axis != 1 and (axis or not per_image)]
    both = (proba * members).sum(dim=axes)
    predicted = (proba.square() if squared else proba).sum(dim=axes)
    return both, predicted, members.sum(dim=axes).to(proba)


def lovasz_sum(errors: Tensor, members: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss at errors ``(L, n)`` of classes ``(L, n)``: (L,).

    The gradient is algorithm 1 of Berman et al., each difference of neighboring Jaccard losses
    worked out, so that no digits cancel.
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
    gradient[:, :1] += (total == 0).to(gradient)  # the first false alarm costs all there is
    return (errors * gradient.detach()).sum(dim=-1)


def _groups(values: Tensor, target: Tensor, per_image: bool) -> list[tuple[Tensor, Tensor]]:
    """Values ``(B, *spatial, ...)`` and labels of the labeled pixels, image by image or all."""
    pairs = zip(values, target, strict=True) if per_image else [(values, target)]
    return [(found[labels >= 0], labels[labels >= 0]) for found, labels in pairs]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; by the smallest number where the denominator is zero."""
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)


def _seen(true: Tensor) -> Tensor:
    """1 where any pixel is labeled, for each batch or image, else 0."""
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
        raise ValueError(f"classes={classes!r} is empty; expected class indices.")
    return indices


def _chosen(classes: str | tuple[int, ...], weights: Tensor) -> Tensor:
    """The weights of the classes asked for, 0 for the others."""
    if isinstance(classes, str):
        return weights
    if max(classes) >= len(weights):
        raise ValueError(
            f"classes={classes} names {max(classes)}, but logits have {len(weights)} channels."
        )
    out = torch.zeros_like(weights)
    out[list(classes)] = weights[list(classes)]
    return out
