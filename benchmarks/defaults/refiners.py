"""The refiners that are scored."""

from hybridseg import DenseCRF, GraphCut, GridCRF, LevelSet

#: As they come.
REFINERS = {
    "DenseCRF": DenseCRF(),
    "GridCRF": GridCRF(),
    "GraphCut": GraphCut(),
    "LevelSet": LevelSet(),
}
#: The same parameters for all images: the defaults before they were chosen from each image.
FIXED = {
    "DenseCRF": DenseCRF(
        spatial_weight=3.0,
        spatial_width=3.0,
        bilateral_weight=10.0,
        bilateral_width=80.0,
        bilateral_color=13.0,
    ),
    "GridCRF": GridCRF(weight=3.0),
    "GraphCut": GraphCut(weight=20.0),
    "LevelSet": LevelSet(smoothing=2, sigma=2.0, edge_weight=50.0),
}
