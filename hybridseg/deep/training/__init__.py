"""From images and label maps to a trained network."""
