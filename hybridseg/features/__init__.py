"""Descriptors of an image: superpixels, region graphs, features of regions and of pixels."""

from hybridseg.features.etps import ETPS, etps
from hybridseg.features.felzenszwalb import Felzenszwalb, felzenszwalb
from hybridseg.features.pixels import PixelFeatures
from hybridseg.features.regions import (
    RegionFeatures,
    RegionGraph,
    region_graph,
    region_labels,
    region_means,
    region_sums,
)
from hybridseg.features.slic import SLIC, slic

__all__ = [
    "ETPS",
    "SLIC",
    "Felzenszwalb",
    "PixelFeatures",
    "RegionFeatures",
    "RegionGraph",
    "etps",
    "felzenszwalb",
    "region_graph",
    "region_labels",
    "region_means",
    "region_sums",
    "slic",
]
