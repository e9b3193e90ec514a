"""The parameters of a dense CRF as parameters of a torch module.

They are positive factors of, or differences from, the values at the start. So they are 0 at first,
values at the start are exact in float64 whatever the dtype of the module, and weight decay pulls to
the values at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hybridseg.deep.dense_features import exact_dtype
from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.validation import as_numbers, check_number, check_option

#: What ``learn`` may name.
PARTS = ("weights", "widths", "compatibility", "bias")

#: The largest absolute logarithm of a factor of a weight, and of a factor of a width.
_MAX_LOG_WEIGHT, _MAX_LOG_WIDTH = 12.0, 3.4

#: The largest absolute cost; sums of such costs and messages still fit a float32.
_MAX_COST = 1e20


class CRFParameters(nn.Module):
    """The parameters of a :class:`hybridseg.CRFLayer`, where they are described.

    Parameters
    ----------
    n_classes : int
    weights : mapping of str to float
        The weight of each kernel by its name; a weight of 0 leaves a kernel out.
    widths : mapping of str to float
        The three standard deviations by their names.
    unary_weight, compatibility, label_bias, learn
        As in :class:`hybridseg.CRFLayer`.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        weights: Mapping[str, float],
        widths: Mapping[str, float],
        unary_weight: float,
        compatibility: str | ArrayLike,
        label_bias: ArrayLike | None,
        learn: str | Sequence[str],
    ) -> None:
        super().__init__()
        self.n_classes = int(check_number(n_classes, "n_classes", minimum=1, integer=True))
        self.learn = _learned(learn)
        check_number(unary_weight, "unary_weight", minimum=0, strict=True)
        for name, weight in weights.items():
            check_number(weight, f"{name}_weight", minimum=0)
        for name, width in widths.items():
            check_number(width, name, minimum=0, strict=True)
        self.kernels = tuple(name for name, weight in weights.items() if weight > 0)
        bias = np.zeros(self.n_classes) if label_bias is None else label_bias
        self._start = {
            "unary_weight": np.array([unary_weight], np.float64),
            "weights": np.array([weights[name] for name in self.kernels], np.float64),
            "widths": np.array(list(widths.values()), np.float64),
            "compatibility": _matrices(compatibility, self.n_classes, len(self.kernels)),
            "bias": _bias(bias, self.n_classes),
        }
        self._make_parameters()

    def _make_parameters(self) -> None:
        """Make the parameters, which are 0 and tell how values differ from those at the start."""

        def parameter(*shape: int, part: str) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=part in self.learn)

        self.log_unary_factor = parameter(part="weights")
        self.log_weight_factors = parameter(len(self.kernels), part="weights")
        self.log_width_factors = parameter(3, part="widths")
        shape = self._start["compatibility"].shape
        self.compatibility_offset = parameter(*shape, part="compatibility")
        self.bias_offset = parameter(self.n_classes, part="bias")

    @property
    def unary_weight(self) -> Tensor:
        """The factor of the logits, ()."""
        return self._grown("unary_weight", self.log_unary_factor, _MAX_LOG_WEIGHT).reshape(())

    @property
    def weights(self) -> Tensor:
        """The weights of the kernels, (m,), in the order of ``kernels``."""
        return self._grown("weights", self.log_weight_factors, _MAX_LOG_WEIGHT)

    @property
    def widths(self) -> Tensor:
        """The standard deviations of the spatial kernel, the bilateral one and its colors, (3,)."""
        return self._grown("widths", self.log_width_factors, _MAX_LOG_WIDTH)

    @property
    def compatibility(self) -> Tensor:
        """The cost of each pair of labels, (1, L, L) or (m, L, L)."""
        offset = self._exact(self.compatibility_offset)
        return self._started("compatibility", offset) + (offset + offset.mT) / 2

    @property
    def label_bias(self) -> Tensor:
        """The cost of each label, (L,)."""
        offset = self._exact(self.bias_offset)
        return self._started("bias", offset) + offset

    def to_params(self) -> dict[str, Any]:
        """Return the parameters by their names in :class:`hybridseg.DenseCRF`.

        Raises
        ------
        ValueError
            The layer compares features, or has a compatibility for each kernel.
        """
        if "feature" in self.kernels or len(self._start["compatibility"]) > 1:
            raise ValueError(
                "the layer has a kernel of features, or one compatibility for each kernel; "
                "expected neither, because a DenseCRF cannot store them."
            )
        with torch.no_grad():
            weights = dict(zip(self.kernels, self.weights.tolist(), strict=True))
            spatial, reach, color = self.widths.tolist()
            found = {
                "unary_weight": float(self.unary_weight),
                "spatial_weight": weights.get("spatial", 0.0),
                "spatial_width": spatial,
                "bilateral_weight": weights.get("bilateral", 0.0),
                "bilateral_width": reach,
                "bilateral_color": color,
                "compatibility": self.compatibility[0].double().cpu().numpy(),
            }
            bias = self.label_bias.double().cpu().numpy()
        return {**found, "label_bias": bias} if bias.any() else found

    def get_extra_state(self) -> Tensor:
        """Return the values at the start, to which the parameters are relative."""
        return torch.tensor(np.concatenate([value.ravel() for value in self._start.values()]))

    def set_extra_state(self, state: Tensor) -> None:
        """Set the values at the start.

        Raises
        ------
        ValueError
            They are those of a layer with other kernels or another number of classes.
        """
        sizes = [value.size for value in self._start.values()]
        if state.shape != (sum(sizes),):
            raise ValueError(
                f"the state has {state.numel()} values at the start; expected {sum(sizes)}: load "
                f"it into a CRFLayer with the same kernels and number of classes."
            )
        if state.is_meta:
            return
        parts = np.split(state.cpu().numpy().astype(np.float64), np.cumsum(sizes)[:-1])
        self._start = {
            name: part.reshape(value.shape)
            for (name, value), part in zip(self._start.items(), parts, strict=True)
        }

    def _exact(self, parameter: Tensor) -> Tensor:
        return parameter.to(exact_dtype(parameter.device))

    def _started(self, name: str, like: Tensor) -> Tensor:
        """Return values at the start on the device and in the dtype of another tensor."""
        return torch.as_tensor(self._start[name]).to(like)

    def _grown(self, name: str, logs: Tensor, most: float) -> Tensor:
        """Return positive values: those at the start times factors with bounded logarithms."""
        logs = self._exact(logs)
        return self._started(name, logs) * logs.clamp(-most, most).exp()

    def _responses(self, dtype: torch.dtype) -> Tensor:
        """Return what a message of label l' adds to the score of label l, (m, L, L)."""
        costs = self.compatibility
        # A constant added to a row changes no marginal; with it, Potts is a multiple of the
        # identity, which the kernels multiply faster.
        rewards = costs.detach().amax(dim=2, keepdim=True) - costs
        return (self.weights[:, None, None] * rewards).to(dtype)

    def _costs(self, rows: Tensor) -> Tensor:
        """Return the costs (..., L) of logits (..., L); the smallest ones are near 0."""
        rows = rows.clamp(-_MAX_COST, _MAX_COST)
        rows = rows - rows.detach().amax(dim=-1, keepdim=True)
        return self.label_bias.to(rows.dtype) - rows * self.unary_weight.to(rows.dtype)


def _learned(learn: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parts that ``learn`` means."""
    if isinstance(learn, str):
        return {"weights": PARTS[:1], "all": PARTS[:3]}[
            check_option(learn, "learn", ("weights", "all"))
        ]
    names = tuple(learn)
    if unknown := [name for name in names if name not in PARTS]:
        raise ValueError(
            f"learn has {unknown}; expected 'weights', 'all', or some of {list(PARTS)}."
        )
    return names


def _matrices(
    compatibility: str | ArrayLike, n_classes: int, n_kernels: int
) -> NDArray[np.float64]:
    """Check a compatibility; return one matrix, (1, L, L), or one for each kernel, (m, L, L)."""
    if isinstance(compatibility, str) or np.ndim(compatibility) != 3:
        return as_compatibility(compatibility, n_classes)[np.newaxis]
    if len(compatibility) != n_kernels:  # type: ignore[arg-type]
        raise ValueError(
            f"compatibility has {len(compatibility)} matrices; expected one, "  # type: ignore[arg-type]
            f"or one for each of the {n_kernels} kernels whose weight is not 0."
        )
    return np.array(
        [
            as_compatibility(matrix, n_classes, name=f"compatibility[{k}]")
            for k, matrix in enumerate(compatibility)  # type: ignore[arg-type]
        ]
    )


def _bias(label_bias: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Check the costs (L,) of labels."""
    bias = as_numbers(label_bias, "label_bias").astype(np.float64)
    if bias.shape != (n_classes,) or not np.isfinite(bias).all():
        raise ValueError(
            f"label_bias={label_bias!r}; expected {n_classes} finite costs, one for each class."
        )
    return bias
