"""Data-parallel training: the processes that train one network together, each on its own device."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybridseg.deep.prediction.device import as_device

#: The value of ``device`` with which accelerate gives each process its device.
LAUNCHED = "accelerate"


@dataclass(frozen=True)
class Processes:
    """One of the processes that train a network together, and its communication with the others.

    Each process has a copy of the network and an equal part of each batch; the gradients are
    averaged. accelerate starts the processes, gives each one its device, and exchanges values
    between them. All processes must call the same methods in the same order.

    Attributes
    ----------
    device : torch.device
        The device of this process.
    rank : int
        The number of this process, from 0. Process 0 writes files and prints.
    count : int
        The number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, device: str) -> Processes:
        """Find the processes and the device of this one from a parameter ``device``.

        Raises
        ------
        ImportError
            accelerate is not installed.
        ValueError
            The device does not exist, or there are fewer GPUs than processes.
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
                f"{state.num_processes}; start {state.num_processes}, or set "
                f"ACCELERATE_USE_CPU=true to train on CPUs."
            )
        return cls(as_device(str(state.device)), state.process_index, state.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def agreed(self, value: Any) -> Any:
        """The value of process 0, in all processes."""
        if self.count == 1:
            return value
        return _accelerate().utils.broadcast_object_list([value])[0]

    def gathered(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.count == 1:
            return values
        return _accelerate().utils.gather_object(values)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of tensors by their means over the processes."""
        held = list(tensors) if self.count > 1 else []
        if not held:
            return
        together = torch.cat([tensor.detach().flatten() for tensor in held])
        means = _accelerate().utils.reduce(together, "mean")
        with torch.no_grad():
            for tensor, mean in zip(held, means.split([t.numel() for t in held]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def alike(self, *modules: nn.Module) -> None:
        """Copy the weights of process 0 to all processes."""
        if self.count > 1:
            states = self.agreed([module.state_dict() for module in modules])
            for module, state in zip(modules, states, strict=True):
                module.load_state_dict(state)

    def check_shared(self, batch_size: int) -> None:
        """Refuse a batch size that is not a multiple of the number of processes.

        Raises
        ------
        ValueError
            ``batch_size`` crops cannot be divided evenly.
        """
        if batch_size % self.count:
            raise ValueError(
                f"{self.count} processes cannot divide batches of {batch_size} crops equally; "
                f"expected multiples of {self.count}: change batch_size, or crops_per_image if an "
                f"epoch has fewer crops than a batch."
            )


def _accelerate() -> Any:
    """Import accelerate, which is an optional dependency."""
    try:
        return importlib.import_module("accelerate")
    except ImportError as error:
        raise ImportError(
            f"device={LAUNCHED!r} needs accelerate: pip install hybridseg[accelerate]"
        ) from error
