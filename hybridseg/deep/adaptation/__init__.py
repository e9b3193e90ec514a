"""Unsupervised domain adaptation: a trained network is adapted to unlabeled images."""
