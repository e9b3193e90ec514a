"""The base class of networks that compute logits from the features of an encoder."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from hybridseg.networks.blocks import pad_to_multiple, resize
from hybridseg.networks.encoders import Encoder


class EncodedNetwork(nn.Module):
    """An encoder, whose features become logits at the size of the images.

    A subclass sets ``encoder`` and implements the hook ``_logits(features)``, which takes the
    feature maps of the encoder and returns logits ``(B, L, h, w)`` of any size. They are then
    interpolated to the size of the images.
    """

    encoder: Encoder
    #: Whether the interpolation aligns the corners of the logits with those of the images.
    _align_corners: ClassVar[bool] = False

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        padded = self._padded(images)
        return self._at_size_of(images, padded, self._logits(self.encoder(padded)))

    def _logits(self, features: list[Tensor]) -> Tensor:
        raise TypeError(f"{type(self).__name__} lacks the hook _logits(features).")

    def _padded(self, images: Tensor) -> Tensor:
        """Pad images, so that their sides are multiples of the encoder's deepest stride."""
        return pad_to_multiple(images, self.encoder.strides[-1], training=self.training)

    def _at_size_of(self, images: Tensor, padded: Tensor, logits: Tensor) -> Tensor:
        """Interpolate the logits of padded images and crop them to the size of the images."""
        height, width = images.shape[-2:]
        large = resize(logits, padded.shape[-2:], align_corners=self._align_corners)
        return large[..., :height, :width]
