"""Roots by their definition, and final trees by the textbook."""

import numpy as np

from hybridseg.kernels.cuts.grid_forest import ROOT
from hybridseg.kernels.cuts.grid_trees import SINK, SOURCE
from tests.oracles.cuts.grid_cut import residual_of
from tests.oracles.cuts.maxflow import sink_side, source_side


def plant_trees(cap, excess, offsets, first, stop):
    """``own`` (N,), and the roots of a band with an open arc that leaves their tree."""
    own = np.select([excess > 0, excess < 0], [SOURCE + ROOT, SINK + ROOT])
    leaving = []
    for v in range(first, stop):
        for d, offset in enumerate(offsets):
            w = v + offset
            if not first <= w < stop or own[v] == 0 or own[w] == own[v]:
                continue
            back = len(offsets) - 1 - d
            if cap[d, v] > 0 if excess[v] > 0 else cap[back, w] > 0:
                leaving.append(v)
                break
    return own, leaving


def meet(cap, excess, offsets, first, stop):
    """The value of the flow inside a band, and the nodes of the source's and the sink's tree."""
    flow, residual = residual_of(cap, excess, offsets, first, stop)
    return flow, source_side(residual), sink_side(residual)
