"""The processes that train one network together, each on a device of its own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybridseg.deep.prediction.device import as_device

#: The ``device`` that means: wherever accelerate has put this process.
LAUNCHED = "accelerate"


@dataclass(frozen=True)
class Processes:
    """The processes that train one network together, as one of them sees them; by default it alone.

    Each process has a copy of the network and sees its part of each batch; gradients are averaged.
    What accelerate does is to start them, to give each its device, and to carry values between
    them. All must call the same methods in the same order.

    Attributes
    ----------
    device : torch.device
    rank : int
        This process's number; the first, 0, is the one that writes.
    count : int
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, device: str) -> Processes:
        """The processes of a ``device=``.

        Raises
        ------
        ImportError, ValueError
            accelerate is not installed, or has no device for each process; or there is no such
            device.
        """
        if device != LAUNCHED:
            return cls(as_device(device))
        accelerate = _accelerate()
        on_cpus = accelerate.utils.parse_flag_from_env("ACCELERATE_USE_CPU")
        state = accelerate.PartialState(cpu=on_cpus)
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if state.num_processes != started:
            raise ValueError(
                f"{started} processes were started, but accelerate finds GPUs for "
                f"{state.num_processes}; to train on CPUs, set ACCELERATE_USE_CPU=true."
            )
        return cls(as_device(str(state.device)), state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agreed(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        return _accelerate().utils.broadcast_object_list([value])[0]

    def gathered(self, values: list[Any]) -> list[Any]:
        """All processes' values, in the order of their ranks."""
        if self.count == 1:
            return values
        return _accelerate().utils.gather_object(values)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by their means over the processes."""
        held = list(tensors) if self.count > 1 else []
        if not held:
            return
        together = torch.cat([tensor.detach().flatten() for tensor in held])
        means = _accelerate().utils.reduce(together, "mean")
        with torch.no_grad():
            for tensor, mean in zip(held, means.split([t.numel() for t in held]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def alike(self, *modules: nn.Module) -> None:
        """Give all processes the first one's weights."""
        if self.count > 1:
            states = self.agreed([module.state_dict() for module in modules])
            for module, state in zip(modules, states, strict=True):
                module.load_state_dict(state)

    def check_shared(self, batch_size: int) -> None:
        """Refuse batches that the processes cannot share evenly.

        Raises
        ------
        ValueError
            Says what would do.
        """
        if batch_size % self.count:
            raise ValueError(
                f"{self.count} processes cannot share batches of {batch_size} crops; expected a "
                f"batch_size, and crops in an epoch, that are multiples of {self.count}."
            )


def _accelerate() -> Any:
    """The package, which is imported by those who need it."""
    try:
        return importlib.import_module("accelerate")
    except ImportError as error:
        raise ImportError(
            f"device={LAUNCHED!r} needs accelerate: pip install hybridseg[accelerate]"
        ) from error
