"""Solvers: costs and what neighbours pay for disagreeing -> marginals or labels.

The names are imported here at once: a function called like its module must be what the package's
attribute means, whichever is imported first.
"""

from hybridseg.inference.dense_model import DenseModel, MeanFieldResult
from hybridseg.inference.dynamic_cut import DynamicCut
from hybridseg.inference.graph_cut import GraphCut, GraphCutResult, graph_cut
from hybridseg.inference.grid_crf import GridCRF, grid_mean_field
from hybridseg.inference.level_set import (
    ChanVeseResult,
    SnakeResult,
    chan_vese,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
)
from hybridseg.inference.mean_field import DenseCRF, mean_field
from hybridseg.inference.random_walker import RandomWalkerResult, random_walker
from hybridseg.inference.region_competition import LevelSet

__all__ = [
    "ChanVeseResult",
    "DenseCRF",
    "DenseModel",
    "DynamicCut",
    "GraphCut",
    "GraphCutResult",
    "GridCRF",
    "LevelSet",
    "MeanFieldResult",
    "RandomWalkerResult",
    "SnakeResult",
    "chan_vese",
    "graph_cut",
    "grid_mean_field",
    "mean_field",
    "morphological_chan_vese",
    "morphological_geodesic_active_contour",
    "random_walker",
]
