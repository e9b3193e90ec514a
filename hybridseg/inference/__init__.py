"""Solvers: from costs and pairwise terms to marginals or labels.

All names are imported here at once, so that a name shared by a function and its module always means
the function.
"""

from hybridseg.inference.contours.chan_vese import ChanVeseResult, chan_vese
from hybridseg.inference.contours.level_set import LevelSet
from hybridseg.inference.contours.morphological import (
    SnakeResult,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
)
from hybridseg.inference.crf import CRF
from hybridseg.inference.cuts.dynamic_cut import DynamicCut
from hybridseg.inference.cuts.graph_cut import GraphCut, graph_cut
from hybridseg.inference.cuts.solve import GraphCutResult, solve_cuts
from hybridseg.inference.mean_field.dense_crf import DenseCRF, mean_field
from hybridseg.inference.mean_field.dense_model import DenseModel, MeanFieldResult
from hybridseg.inference.mean_field.free_energy import free_energy
from hybridseg.inference.mean_field.grid_crf import GridCRF, grid_mean_field
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.random_walk.random_walker import RandomWalkerResult, random_walker
from hybridseg.inference.random_walk.walker import RandomWalker

__all__ = [
    "CRF",
    "ChanVeseResult",
    "DenseCRF",
    "DenseModel",
    "DynamicCut",
    "GraphCut",
    "GraphCutResult",
    "GridCRF",
    "LevelSet",
    "MeanFieldResult",
    "RandomWalker",
    "RandomWalkerResult",
    "SnakeResult",
    "chan_vese",
    "free_energy",
    "graph_cut",
    "grid_mean_field",
    "mean_field",
    "morphological_chan_vese",
    "morphological_geodesic_active_contour",
    "random_walker",
    "solve_cuts",
    "solve_mean_field",
]
