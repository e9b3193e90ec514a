"""A dense CRF as the last layer of a network: mean field that autograd differentiates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

try:
    import torch
except ImportError as error:
    raise ImportError("CRFLayer needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor

from hybridseg.deep.crf_parameters import CRFParameters
from hybridseg.deep.dense_features import ColorScale, check_extent, joined, positions
from hybridseg.deep.kernel_mean_field import KernelMeanField
from hybridseg.deep.permutohedral import TorchFilter, log_marginals
from hybridseg.networks.arguments import remember_arguments
from hybridseg.validation import as_spacing, check_number, check_option

#: The parameters of a `hybridseg.DenseCRF` that have to be given as numbers.
_NUMBERS = (
    *("spatial_weight", "spatial_width"),
    *("bilateral_weight", "bilateral_width", "bilateral_color"),
)

BACKENDS = ("auto", "kernels", "torch")


class CRFLayer(CRFParameters):
    """A dense CRF as the last layer of a network, trained together with it [1]_.

    The layer refines logits by mean field in a fully connected CRF, as
    :class:`hybridseg.DenseCRF` refines costs: boundaries move to where the colors change. The
    gradient passes through all iterations to the logits and to the parameters of the CRF.

    Parameters
    ----------
    n_classes : int
        The number of classes L.
    spatial_weight, spatial_width : float
        Weight and standard deviation (in the unit of ``spacing``; pixels without one) of the kernel
        of positions, at least 0 and above 0. A weight of 0 leaves a kernel out, for good.
    bilateral_weight, bilateral_width, bilateral_color : float
        Weight, standard deviation of the distance, and standard deviation of each color on the
        scale 0..255, of the kernel that joins pixels of similar color.
    feature_weight, feature_width : float
        Weight and standard deviation of the distance of a kernel that compares ``features``, such
        as the activations of a network. A weight of 0 leaves it out; a width of None compares
        features without positions.
    unary_weight : float
        The factor of the logits.
    compatibility : "potts" or array-like, (L, L) or (m, L, L)
        The cost of each pair of labels, symmetric; with three axes, one matrix for each of the m
        kernels whose weight is not 0.
    label_bias : array-like, (L,), optional
        A cost of each label at every pixel.
    n_iter : int
        The number of mean-field iterations in training mode.
    n_iter_eval : int, optional
        The number in evaluation mode. None: ``n_iter``.
    learn : {"weights", "all"} or sequence of str
        The parameters with a gradient: some of "weights" (those of logits and kernels), "widths",
        "compatibility" and "bias". "all" means the first three; ``()`` means none.
    image_range : "dtype" or (low, high)
        The values of images that mean black and white. "dtype": 0 and 255 for uint8, 0 and 1 for
        floats.
    image_mean, image_std : sequence of float, (C,), optional
        The mean and standard deviation with which the images were normalized, on the scale of
        ``image_range``. Give both if the layer gets the images that a network gets.
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.
    backend : {"auto", "kernels", "torch"}
        "kernels" are the compiled kernels, for the CPU and float32. "torch" is made of operations
        of torch, for every device, float32 and float64. "auto" uses kernels where they can run.

    Attributes
    ----------
    log_unary_factor : Parameter, ()
    log_weight_factors : Parameter, (m,)
    log_width_factors : Parameter, (3,)
        The logarithms of the factors by which weights and widths (spatial, bilateral, color) differ
        from the given ones; 0 at the start. Weight decay thus pulls to the given values.
    compatibility_offset : Parameter, (1, L, L) or (m, L, L)
        What is added to the given compatibility, after it is averaged with its transpose.
    bias_offset : Parameter, (L,)
        What is added to the given label bias.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    See Also
    --------
    hybridseg.DenseCRF : the same for fitted segmenters, with parameters that are learned from the
        mean IoU.

    Notes
    -----
    A step of training is as usual: the result is the logarithm of the marginals, and so the losses
    of logits fit. ``images`` are those that the network gets, or others of the same size::

        crf = CRFLayer(21, image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225))
        refined = crf(network(images), images)
        loss = torch.nn.functional.cross_entropy(refined, labels)

    The same lines replace other layers. ``GaussCRF(conf, shape, nclasses)`` of ConvCRF [2]_ gets
    colors on the scale 0..255, and CRF-as-RNN [1]_ has the bandwidths theta_alpha, theta_beta and
    theta_gamma, 5 iterations in training and 10 afterwards::

        crf = CRFLayer(nclasses, image_range=(0, 255))
        crf = CRFLayer(
            21, bilateral_width=160, bilateral_color=3, spatial_width=3, n_iter=5, n_iter_eval=10
        )

    Weights are on another scale than theirs. ConvCRF does not normalize messages by default, and
    its filters have a limited reach; CRF-as-RNN divides messages by the row sums of the kernel.
    Here the normalization is symmetric, as in [3]_ and pydensecrf, and kernels reach across the
    whole image.

    Start with a trained network, or train it alone at first: with logits that say nothing, a strong
    CRF gives one label to the whole image, and its gradient vanishes. With Adam, a learning rate of
    0.01 changes a weight or width by about 1% in a step.

    The kernels and torch's operations compute the same filter, up to rounding. The gradient is
    exact for it, except where a pixel lies on the border of a simplex of the lattice: there the
    gradient with respect to widths and features is that of one side. The kernels take one image
    after the other, torch's operations the whole batch at once; on a CPU the kernels are several
    times as fast.

    References
    ----------
    .. [1] S. Zheng et al., "Conditional random fields as recurrent neural networks", ICCV, 2015.
    .. [2] M. Teichmann, R. Cipolla, "Convolutional CRFs for semantic segmentation", BMVC, 2019.
    .. [3] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
       fields", ICML, 2013.

    Examples
    --------
    >>> import torch
    >>> from hybridseg import CRFLayer
    >>> images = torch.zeros(1, 1, 12, 16)
    >>> images[..., 8:] = 0.8
    >>> labels = (images[:, 0] > 0).long()
    >>> logits = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1) * 0.4
    >>> logits[0, :, 5, 3] = torch.tensor([0.0, 0.4])  # a wrong pixel
    >>> crf = CRFLayer(2)
    >>> refined = crf(logits.requires_grad_(), images)
    >>> bool((refined.argmax(dim=1) == labels).all())
    True
    >>> torch.nn.functional.cross_entropy(refined, labels).backward()
    >>> logits.grad.shape, crf.log_weight_factors.grad.shape
    (torch.Size([1, 2, 12, 16]), torch.Size([2]))
    """

    def __init__(
        self,
        n_classes: int,
        *,
        spatial_weight: float = 3.0,
        spatial_width: float = 3.0,
        bilateral_weight: float = 5.0,
        bilateral_width: float = 80.0,
        bilateral_color: float = 13.0,
        feature_weight: float = 0.0,
        feature_width: float | None = None,
        unary_weight: float = 1.0,
        compatibility: str | ArrayLike = "potts",
        label_bias: ArrayLike | None = None,
        n_iter: int = 5,
        n_iter_eval: int | None = None,
        learn: str | Sequence[str] = ("weights", "compatibility"),
        image_range: str | Sequence[float] = "dtype",
        image_mean: Sequence[float] | float | None = None,
        image_std: Sequence[float] | float | None = None,
        spacing: Sequence[float] | float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            n_classes,
            weights={
                "spatial": spatial_weight,
                "bilateral": bilateral_weight,
                "feature": feature_weight,
            },
            widths={
                "spatial_width": spatial_width,
                "bilateral_width": bilateral_width,
                "bilateral_color": bilateral_color,
            },
            unary_weight=unary_weight,
            compatibility=compatibility,
            label_bias=label_bias,
            learn=learn,
        )
        self.n_iter = check_number(n_iter, "n_iter", minimum=0, integer=True)
        if n_iter_eval is not None:
            check_number(n_iter_eval, "n_iter_eval", minimum=0, integer=True)
        self.n_iter_eval = n_iter_eval
        self.scale = ColorScale.of(image_range, image_mean, image_std)
        self.spacing = spacing
        self.backend = check_option(backend, "backend", BACKENDS)
        if feature_width is not None:
            check_number(feature_width, "feature_width", minimum=0, strict=True)
        self.feature_width = feature_width

    def forward(
        self,
        logits: Tensor,
        images: Tensor | None = None,
        mask: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Refine logits.

        Parameters
        ----------
        logits : Tensor, (B, L, H, W) or (B, L, D, H, W)
            Half precision is computed in float32, also under autocast.
        images : Tensor, (B, C, *spatial)
            See ``image_range`` and ``image_mean``; any number of channels. Not needed without the
            bilateral kernel.
        mask : Tensor of bool, (B, *spatial), optional
            Where False, a pixel does not influence others, and its marginals are uniform.
        features : Tensor, (B, F, *spatial), optional
            For the kernel of ``feature_weight``, divided by its standard deviations. The gradient
            reaches them.

        Returns
        -------
        Tensor, (B, L, *spatial)
            The logarithms of the marginals, float32 or, for logits in float64, float64. They are
            logits: their softmax gives the marginals.

        Raises
        ------
        TypeError, ValueError
            A shape or dtype is not as described, images are outside the range or not finite, or
            ``backend="kernels"`` cannot serve the device or dtype.
        """
        self._check(logits, images, mask, features)
        dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
        by_kernels = self._by_kernels(logits)
        with torch.autocast(logits.device.type, enabled=False):
            rows = logits.to(dtype).flatten(2).transpose(1, 2)
            every = self._features(logits, images, mask, features, dtype)
            chosen = None if mask is None else mask.flatten(1)
            solve = self._solve_each if by_kernels else self._solve_at_once
            return solve(rows, every, chosen).transpose(1, 2).reshape(logits.shape)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], n_classes: int, **options: Any) -> Self:
        """Make a layer from the parameters of a :class:`hybridseg.DenseCRF`.

        In evaluation mode the layer refines as ``DenseCRF(**params)`` does, with as many
        iterations.

        Parameters
        ----------
        params : mapping
            Weights and widths of both kernels, and possibly ``unary_weight``, ``compatibility``,
            ``label_bias`` and ``n_iter``; such as ``params_`` of a DenseCRF that learned "all".
        n_classes : int
        **options
            Further arguments of the layer.

        Raises
        ------
        ValueError
            A weight or width is missing or "auto", which depends on the image, or a parameter has
            no equivalent.
        """
        given = dict(params)
        known = (*_NUMBERS, "unary_weight", "compatibility", "label_bias", "n_iter")
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(
                f"params has {', '.join(unknown)}; expected some of {', '.join(known)}: remove the "
                f"others, which a layer does not have."
            )
        if open_ones := [name for name in _NUMBERS if isinstance(given.get(name, ""), str)]:
            raise ValueError(
                f"params has no number for {', '.join(open_ones)}, which DenseCRF then chooses for "
                f"each image; expected numbers: pass the values of parameters_for(X)."
            )
        given.setdefault("n_iter", 10)
        given["n_iter_eval"] = given["n_iter"]
        return cls(n_classes, **{**given, **options})

    def extra_repr(self) -> str:
        """Return the values for ``repr``."""
        with torch.no_grad():
            weights = [f"{w:.3g}" for w in self.weights.tolist()]
            widths = [f"{w:.3g}" for w in self.widths.tolist()]
        named = ", ".join(f"{k}={w}" for k, w in zip(self.kernels, weights, strict=True))
        return (
            f"{self.n_classes}, {named}, widths=({', '.join(widths)}), n_iter={self.n_iter}, "
            f"learn={self.learn}, backend={self.backend!r}"
        )

    def _n_iter(self) -> int:
        if self.training or self.n_iter_eval is None:
            return int(self.n_iter)
        return int(self.n_iter_eval)

    def _by_kernels(self, logits: Tensor) -> bool:
        """Return whether the compiled kernels compute the result."""
        can = logits.device.type == "cpu" and logits.dtype != torch.float64
        if self.backend == "kernels" and not can:
            raise ValueError(
                f"backend='kernels', but logits are {logits.dtype} on {logits.device}; expected "
                f"float32 on the CPU: pass backend='auto'."
            )
        return can and self.backend != "torch"

    def _features(
        self,
        logits: Tensor,
        images: Tensor | None,
        mask: Tensor | None,
        features: Tensor | None,
        dtype: torch.dtype,
    ) -> list[Tensor]:
        """Return the features (B, n, d) of each kernel."""
        shape, found = logits.shape[2:], []
        steps = as_spacing(self.spacing, len(shape))
        widths = self.widths.to(logits.device)
        for name in self.kernels if self._n_iter() else ():
            hint = "raise its widths, or correct NaN values"
            if name == "spatial":
                places = positions(shape, steps, widths[0], dtype)
                every = places.expand(len(logits), -1, -1)
            elif name == "bilateral":
                assert images is not None  # checked before
                if mask is not None:  # values beyond the mask may be anything
                    known = mask[:, None].expand_as(images)
                    images = torch.where(known, images, images[known].min() if known.any() else 0)
                colors = self.scale.colors(images, dtype) / widths[2].to(dtype)
                every = joined(positions(shape, steps, widths[1], dtype), colors)
            else:
                assert features is not None
                given = features.to(dtype)
                every = given.flatten(2).transpose(1, 2)
                if self.feature_width is not None:
                    width = widths.new_tensor(self.feature_width)
                    every = joined(positions(shape, steps, width, dtype), given)
                if mask is not None:
                    every = torch.where(mask.flatten(1)[..., None], every, 0)
                hint = "divide features by their standard deviations, or correct NaN values"
            check_extent(every, f"the {name} kernel", hint)
            found.append(every)
        return found

    def _solve_each(self, rows: Tensor, every: list[Tensor], mask: Tensor | None) -> Tensor:
        """Return log-marginals (B, n, L) of logits (B, n, L), one image after the other."""
        responses = self._responses(rows.dtype)
        found = []
        for i, own in enumerate(rows):
            features = [each[i] for each in every]
            if mask is not None:
                own, features = own[mask[i]], [each[mask[i]] for each in features]
            found.append(self._solved(own, features, responses))
        return _spread(torch.cat(found) if found else rows.flatten(0, 1), rows, mask)

    def _solved(self, rows: Tensor, features: list[Tensor], responses: Tensor) -> Tensor:
        """Return log-marginals (n, L) of one image by the compiled kernels."""
        costs = self._costs(rows)
        if not features or not len(rows):
            return (-costs).log_softmax(dim=1)
        keep = torch.is_grad_enabled()
        found: Tensor = KernelMeanField.apply(costs, responses, self._n_iter(), keep, *features)
        return found

    def _solve_at_once(self, rows: Tensor, every: list[Tensor], mask: Tensor | None) -> Tensor:
        """Return log-marginals (B, n, L) of logits (B, n, L) by operations of torch."""
        numbers = torch.arange(len(rows), device=rows.device)
        images = numbers.repeat_interleave(rows.shape[1])
        chosen = slice(None) if mask is None else mask.reshape(-1)
        flat = rows.flatten(0, 1)[chosen]
        filters = []
        if len(flat):
            filters = [TorchFilter.of(each.flatten(0, 1)[chosen], images[chosen]) for each in every]
        n_iter = self._n_iter() if filters else 0
        found = log_marginals(filters, self._costs(flat), self._responses(rows.dtype), n_iter)
        return _spread(found, rows, mask)

    def _check(
        self, logits: Tensor, images: Tensor | None, mask: Tensor | None, features: Tensor | None
    ) -> None:
        """Refuse arguments of ``forward`` with other shapes or dtypes than described."""
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            what = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise TypeError(f"logits is {what}; expected a tensor of floats.")
        if logits.ndim not in (4, 5) or logits.shape[1] != self.n_classes:
            raise ValueError(
                f"logits has shape {tuple(logits.shape)}; expected (B, {self.n_classes}, H, W) or "
                f"(B, {self.n_classes}, D, H, W)."
            )
        wanted = {"images": images} if "bilateral" in self.kernels else {}
        wanted |= {"features": features} if "feature" in self.kernels else {}
        if features is not None and "feature" not in self.kernels:
            raise ValueError(
                "features is given, but feature_weight is 0; expected a weight above 0: pass it "
                "to CRFLayer."
            )
        for name, value in wanted.items():
            if value is None:
                raise ValueError(f"{name} is None, but a kernel compares them; pass {name}.")
            if value.ndim != logits.ndim or _but_channels(value) != _but_channels(logits):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, but logits has "
                    f"{tuple(logits.shape)}; expected the same number of images and the same size."
                )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != _but_channels(logits)):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype}; expected "
                f"{tuple(_but_channels(logits))} and bool, True where a pixel is valid."
            )


def _but_channels(batch: Tensor) -> torch.Size:
    """Return the shape without the axis of channels."""
    return batch.shape[:1] + batch.shape[2:]


def _spread(found: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
    """Return rows (B, n, L) for all pixels; those beyond the mask are uniform."""
    if mask is None:
        return found.reshape(rows.shape)
    uniform = torch.full(rows.shape, -float(np.log(rows.shape[-1])), dtype=rows.dtype)
    return uniform.to(rows.device).index_put((mask,), found)


remember_arguments(CRFLayer)
