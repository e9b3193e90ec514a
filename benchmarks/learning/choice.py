"""What a method is: it chooses its parameters on validation images, then predicts label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from benchmarks.learning.costs import Part
from hybridseg import Scene


@dataclass(frozen=True)
class Setting:
    """How parameters are searched.

    Attributes
    ----------
    n_trials : int
        Of a random search.
    seed : int
    """

    n_trials: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """A method with its parameters chosen.

    Attributes
    ----------
    predict : callable
        ``predict(scene)`` returns a label map, (H, W), of integers.
    facts : dict
        What to keep with the scores: the parameters, the score on the validation images.
    """

    predict: Callable[[Scene], NDArray[Any]]
    facts: dict[str, Any] = field(default_factory=dict)


#: ``choose(val, setting)`` returns a Choice; its processor time is measured.
Method = Callable[[Part, Setting], Choice]
