"""From images to logits: tiles, test-time augmentation, precision, devices and uncertainty."""
