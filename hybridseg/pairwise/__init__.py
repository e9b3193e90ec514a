"""What neighbours pay for disagreeing, and the energy that judges every solver."""

from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.dense import (
    BilateralKernel,
    FeatureKernel,
    GaussianKernel,
    dense_energy,
)
from hybridseg.pairwise.energy import energy
from hybridseg.pairwise.grid import grid_weights
from hybridseg.pairwise.regions import dense_region_weights, region_weights

__all__ = [
    "BilateralKernel",
    "FeatureKernel",
    "GaussianKernel",
    "as_compatibility",
    "dense_energy",
    "dense_region_weights",
    "energy",
    "grid_weights",
    "region_weights",
]
