"""Terms (grid, regions, edges, dense kernels, cliques), and the energy that they add up to."""

from hybridseg.pairwise.class_kernels import ClassKernels
from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.contours import ContourTerm
from hybridseg.pairwise.dense import BilateralKernel, FeatureKernel, GaussianKernel
from hybridseg.pairwise.edges import EdgeTerm
from hybridseg.pairwise.energy import Energy, dense_energy, energy
from hybridseg.pairwise.grid import GridTerm, grid_weights
from hybridseg.pairwise.higher_order.cliques import Cliques, CliqueTerm
from hybridseg.pairwise.higher_order.label_sets import CoOccurrence, LabelCosts
from hybridseg.pairwise.higher_order.superpixel_cliques import SuperpixelCliques
from hybridseg.pairwise.location import LocationPrior
from hybridseg.pairwise.regions import RegionTerm, dense_region_weights, region_weights
from hybridseg.pairwise.sites import Sites

__all__ = [
    "BilateralKernel",
    "ClassKernels",
    "CliqueTerm",
    "Cliques",
    "CoOccurrence",
    "ContourTerm",
    "EdgeTerm",
    "Energy",
    "FeatureKernel",
    "GaussianKernel",
    "GridTerm",
    "LabelCosts",
    "LocationPrior",
    "RegionTerm",
    "Sites",
    "SuperpixelCliques",
    "as_compatibility",
    "dense_energy",
    "dense_region_weights",
    "energy",
    "grid_weights",
    "region_weights",
]
