"""From images and label maps to a trained network: crops, loss, training loop and checkpoints."""
