"""From images to logits: windows, mirrored views, precision, devices, uncertainty."""
