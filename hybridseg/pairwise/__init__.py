"""Pairwise terms (grid, regions, edges, dense kernels), and the energy that they add up to."""

from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.contours import ContourTerm
from hybridseg.pairwise.dense import BilateralKernel, FeatureKernel, GaussianKernel
from hybridseg.pairwise.edges import EdgeTerm
from hybridseg.pairwise.energy import Energy, dense_energy, energy
from hybridseg.pairwise.grid import GridTerm, grid_weights
from hybridseg.pairwise.label_sets import CoOccurrence, LabelCosts
from hybridseg.pairwise.regions import RegionTerm, dense_region_weights, region_weights
from hybridseg.pairwise.sites import Sites

__all__ = [
    "BilateralKernel",
    "ContourTerm",
    "CoOccurrence",
    "EdgeTerm",
    "Energy",
    "FeatureKernel",
    "GaussianKernel",
    "GridTerm",
    "LabelCosts",
    "RegionTerm",
    "Sites",
    "as_compatibility",
    "dense_energy",
    "dense_region_weights",
    "energy",
    "grid_weights",
    "region_weights",
]
