"""Learning of a refiner's parameters: objectives on marginals, optimizers, and the gate."""

from hybridseg.learning.gate import GateReport
from hybridseg.learning.learner import Learner
from hybridseg.learning.report import LearningReport, Step

__all__ = ["GateReport", "Learner", "LearningReport", "Step"]
