"""Mean field with the compiled dense kernels as a function of torch's autograd.

The gradient is that of `hybridseg.inference.mean_field.dense_gradient`: all iterations are passed
through backwards. The function returns logarithms of marginals. Their gradient, passed through the
softmax of the last iteration, is the gradient of the last scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybridseg.inference.mean_field.dense_gradient import DenseTape
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.dense_filter import embed

Singles = NDArray[np.float32]


class KernelMeanField(torch.autograd.Function):
    """Logarithms of the marginals (n, L) of mean field on one image.

    The arguments of ``apply`` are tensors of float32 on the CPU: costs (n, L), matrices A_k
    (m, L, L), the number of iterations, whether a gradient will be asked for, and the features
    (n, d) of each kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, costs: Tensor, responses: Tensor, n_iter: int, keep: bool, *features: Tensor
    ) -> Tensor:
        """Run mean field, and record what the gradient needs."""
        rows = np.ascontiguousarray(costs.detach().numpy())
        embedded = [np.ascontiguousarray(each.detach().numpy()) for each in features]
        with threads_for(rows.size):
            dense = embed(embedded, len(rows))
        matrices = responses.detach().numpy().astype(np.float64)
        keep = keep and any(ctx.needs_input_grad)
        tape = DenseTape.record(dense, rows, list(matrices), n_iter, keep=keep)
        found = torch.from_numpy(_log_marginals(tape, rows))
        if keep:
            # With marginals of one, the tape takes the gradient of scores that sums to zero as
            # it is: q * (g - <q, g>) = g.
            tape.marginals[-1] = 1
            ctx.tape, ctx.features = tape, embedded
            ctx.save_for_backward(found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Any:
        """Return the gradients with respect to costs, matrices and features."""
        (found,) = ctx.saved_tensors
        slopes = given - found.exp() * given.sum(dim=1, keepdim=True)
        # Slopes of a mean over pixels are small. Their products with small marginals would be
        # denormal numbers, which are slow, so slopes are scaled to a largest value of one.
        scale = float(slopes.abs().max())
        scale = scale if 0 < scale < float("inf") else 1.0
        n_features = len(ctx.features)
        wanted = ctx.needs_input_grad[4:]
        scaled = np.ascontiguousarray((slopes / scale).numpy())
        gradient = ctx.tape.gradient(scaled, corners=any(wanted))
        of_features: list[Tensor | None] = [None] * n_features
        for kernel, features in enumerate(ctx.features):
            if wanted[kernel]:
                own = gradient.of_features(ctx.tape.dense, kernel, features) * scale
                of_features[kernel] = torch.from_numpy(own.astype(np.float32))
        of_responses = None
        if ctx.needs_input_grad[1]:
            of_responses = torch.from_numpy(np.array(gradient.responses, np.float32) * scale)
        return torch.from_numpy(gradient.costs) * scale, of_responses, None, None, *of_features


def _log_marginals(tape: DenseTape, costs: Singles) -> Singles:
    """Return the logarithms of the last marginals, exact also where a marginal is rounded to 0."""
    last = tape.marginals[-1]
    vanished = np.flatnonzero((last == 0).any(axis=1))
    with np.errstate(divide="ignore"):
        found: Singles = np.log(last)
    if len(vanished):
        scores = tape.messages(vanished) - costs[vanished]
        scores -= scores.max(axis=1, keepdims=True)
        found[vanished] = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return found
