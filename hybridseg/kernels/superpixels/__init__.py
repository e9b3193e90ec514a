"""Colors, runs of equal labels, superpixels, and what regions hold."""
