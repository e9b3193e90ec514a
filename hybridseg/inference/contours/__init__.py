"""Segmentation by evolving contours: level sets and morphological snakes."""
