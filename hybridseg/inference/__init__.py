"""Solvers: costs and what neighbours pay for disagreeing -> marginals or labels.

The names are imported here at once: a function called like its module must be what the package's
attribute means, whichever is imported first.
"""

from hybridseg.inference.graph_cut import GraphCut, GraphCutResult, graph_cut
from hybridseg.inference.mean_field import DenseCRF, MeanFieldResult, mean_field

__all__ = ["DenseCRF", "GraphCut", "GraphCutResult", "MeanFieldResult", "graph_cut", "mean_field"]
