"""Small networks with the conventions of other libraries."""

import pytest
from torch import nn


def tiny_segformer(n_classes):
    transformers = pytest.importorskip("transformers")
    settings = transformers.SegformerConfig(
        num_labels=n_classes,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
    )
    return transformers.SegformerForSemanticSegmentation(settings)


class Recorder(nn.Module):
    """A network that returns its input in a wrapper, and keeps it."""

    def __init__(self, wrap=lambda images: images):
        super().__init__()
        self.wrap = wrap

    def forward(self, images):
        self.seen = images
        return self.wrap(images)
