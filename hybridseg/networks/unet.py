"""The U-Net of Ronneberger, Fischer and Brox (2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import MAX_DEPTH, check_counts, double_conv, init_he, pad_to_multiple
from hybridseg.validation import check_number

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net: an encoder and a decoder with skip connections between equal levels [1]_.

    Each level has two 3x3 convolutions with ReLU. In the encoder, 2x2 max pooling halves the size
    and the channels double. In the decoder, a 2x2 up-convolution doubles the size and halves the
    channels, and the encoder's features of the same level are concatenated. The convolutions of the
    paper are unpadded (572 pixels in, 388 out). Here they keep the size, so that each pixel of the
    image has its logits; the parameters are the same.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=64
        Channels of the first level; 64 in the paper (31 million parameters with ``depth=4``). Time
        and parameters grow with its square: 8 to 16 suit a CPU and a few images, 32 to 64 a GPU.
    depth : int, default=4
        Number of times the size is halved. The receptive field is about ``12 * 2**depth`` pixels
        wide: use 2 or 3 if classes differ in texture, 4 or 5 if they differ in the shape of large
        objects.
    batch_norm : bool, default=True
        Add batch normalization between each 3x3 convolution and its ReLU. The paper has none. With
        it, deep networks train at ten times the learning rate. The convolutions keep their bias,
        which is then redundant but included in most published parameter counts.
    dropout : float in [0, 1), default=0.0
        Fraction of the deepest features that is dropped in training: the paper's "drop-out layers
        at the end of the contracting path".

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    Weights are drawn from a Gaussian of variance 2/N, with N the number of inputs of one output
    (section 3 of [1]_). Images whose size is no multiple of ``2**depth`` are padded at the bottom
    and right with their last row and column, and the logits are cropped.

    ``UNet(1, 2, batch_norm=False)``, the network of the paper, has 31 030 658 parameters, and
    ``UNet(3, 21)`` has 31 044 821.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
       Segmentation", MICCAI, 2015, arXiv:1505.04597.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import UNet
    >>> network = UNet(in_channels=1, n_classes=2, width=8, depth=2).eval()
    >>> tuple(network(torch.zeros(1, 1, 37, 50)).shape)
    (1, 2, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        width: int = 64,
        depth: int = 4,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width)
        check_number(depth, "depth", minimum=0, maximum=MAX_DEPTH, integer=True)
        widths = [width * 2**level for level in range(depth + 1)]
        ins = [in_channels, *widths]
        self.stride = 2**depth
        self.down = nn.ModuleList(
            double_conv(ins[level], widths[level], batch_norm) for level in range(depth)
        )
        self.bottom = double_conv(ins[depth], widths[depth], batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, kernel_size=2, stride=2)
            for channels in widths[-2::-1]
        )
        self.merge = nn.ModuleList(
            double_conv(2 * channels, channels, batch_norm) for channels in widths[-2::-1]
        )
        self.head = nn.Conv2d(width, n_classes, kernel_size=1)
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        features = pad_to_multiple(images, self.stride, training=self.training)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
            features = functional.max_pool2d(features, 2)
        features = self.dropout(self.bottom(features))
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([skips.pop(), up(features)], dim=1))
        return self.head(features)[..., :height, :width]
