"""The families of kernels in the benchmark."""

#: The module of each family, and the kernels that it times.
FAMILIES = {
    "lattice": "construction of the dense CRF's lattices",
    "dense_crf": "dense CRF",
    "grid_cut": "binary minimum cuts on grids",
    "expansion": "alpha-expansion",
    "superpixels": "SLIC and Felzenszwalb",
    "superpixel_quality": "superpixels against human boundaries",
    "random_walker": "random walker",
    "level_set": "morphological snakes and Chan-Vese",
    "grid_crf": "mean field on grids",
    "region_graphs": "cuts and mean field on superpixels",
}
