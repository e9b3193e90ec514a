"""A trained network for images of another kind, without labels."""
