"""The attention U-Net of Oktay et al. (2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import check_counts, double_conv, init_he, pad_to_multiple, resize
from hybridseg.validation import check_option

__all__ = ["AttentionUNet"]


class AttentionUNet(nn.Module):
    """Attention U-Net: a U-Net whose skip connections are gated by attention [1]_.

    An additive attention gate compares the features of a skip connection with the gating signal
    from the decoder. It multiplies each position of the skip features by a number between 0 and 1,
    so that the decoder receives the relevant regions only (section 2 of [1]_). :meth:`attention`
    returns these numbers.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=64
        Channels of the first level; 64, or 16 in the authors' code for volumes.
    depth : int, default=4
        Number of times the size is halved; 4 in the paper.
    gates : {"coarse", "equal"}, default="coarse"
        "coarse" is the form of the paper and of the authors' code. The gating signal comes from the
        level below the skip connection, and both are compared at the size of that level. The skip
        connection of full size is not gated. Features are upsampled bilinearly. Each level has its
        own class scores (deep supervision), and a 1x1 convolution mixes them. "equal" is the form
        of most 2-D implementations. The gating signal is first brought to the size and channels of
        the skip connection. All skip connections are gated, and there is one head.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    This network is 2-D, whereas the paper segments volumes. ``AttentionUNet(3, 1, gates="equal")``
    has 34 878 573 parameters, as many as the widespread 2-D implementation.

    References
    ----------
    .. [1] O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL, 2018,
       arXiv:1804.03999.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import AttentionUNet
    >>> network = AttentionUNet(n_classes=4, width=8, depth=2).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    >>> [tuple(attention.shape) for attention in network.attention(torch.zeros(1, 3, 37, 50))]
    [(1, 1, 20, 26)]
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        width: int = 64,
        depth: int = 4,
        gates: str = "coarse",
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        check_option(gates, "gates", ("coarse", "equal"))
        self.stride = 2**depth
        self.coarse = gates == "coarse"
        widths = [width * 2**level for level in range(depth + 1)]
        ins = [in_channels, *widths]
        self.down = nn.ModuleList(
            double_conv(before, after) for before, after in zip(ins, widths, strict=False)
        )
        ups = widths[-2::-1]
        if self.coarse:
            self.signal = _conv_relu(widths[-1], widths[-1], 1)
            self.up = nn.ModuleList(nn.Identity() for _ in ups)
            self.gates = nn.ModuleList(_CoarseGate(channels, 2 * channels) for channels in ups[:-1])
            self.merge = nn.ModuleList(double_conv(3 * channels, channels) for channels in ups)
            self.scores = nn.ModuleList(nn.Conv2d(channels, n_classes, 1) for channels in ups)
            self.head = nn.Conv2d(n_classes * depth, n_classes, 1)
        else:
            self.signal = nn.Identity()
            self.up = nn.ModuleList(_conv_relu(2 * channels, channels, 3) for channels in ups)
            self.gates = nn.ModuleList(_EqualGate(channels) for channels in ups)
            self.merge = nn.ModuleList(double_conv(2 * channels, channels) for channels in ups)
            self.scores = nn.ModuleList()
            self.head = nn.Conv2d(width, n_classes, 1)
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        levels, _ = self._decode(images)
        if self.coarse:
            size = levels[-1].shape[-2:]
            scored = zip(self.scores, levels, strict=True)
            scores = [resize(score(features), size) for score, features in scored]
            logits = self.head(torch.cat(scores, dim=1))
        else:
            logits = self.head(levels[-1])
        return logits[..., :height, :width]

    def attention(self, images: Tensor) -> list[Tensor]:
        """Return the weights of each gate, ``(B, 1, h, w)`` in 0..1, the coarsest level first.

        They cover the image after it was padded to a multiple of the network's stride.
        """
        return self._decode(images)[1]

    def _decode(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the decoder's features of each level, and the weights of the gates."""
        features = pad_to_multiple(images, self.stride, training=self.training)
        skips = []
        for level, block in enumerate(self.down):
            features = block(functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        found = skips.pop()
        signal, levels, weights = self.signal(found), [], []
        for level, (up, merge) in enumerate(zip(self.up, self.merge, strict=True)):
            skip = skips.pop()
            mode = "bilinear" if self.coarse else "nearest"
            larger = up(functional.interpolate(found, size=skip.shape[-2:], mode=mode))
            if level < len(self.gates):
                skip, weight = self.gates[level](skip, signal if self.coarse else larger)
                weights.append(weight)
            found = signal = merge(torch.cat([skip, larger], dim=1))
            levels.append(found)
        return levels, weights


class _CoarseGate(nn.Module):
    """An attention gate whose signal has half the size of the skip connection (Figure 2)."""

    def __init__(self, channels: int, signal_channels: int) -> None:
        super().__init__()
        self.of_skip = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.of_signal = nn.Conv2d(signal_channels, channels, 1)
        self.weigh = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, 1, 1), nn.Sigmoid())
        self.after = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, skip: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weigh(self.of_skip(skip) + self.of_signal(signal))
        weight = resize(weight, skip.shape[-2:])
        return self.after(skip * weight), weight


class _EqualGate(nn.Module):
    """An attention gate whose signal has the size and channels of the skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.of_skip = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.of_signal = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.weigh = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid()
        )

    def forward(self, skip: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weigh(self.of_skip(skip) + self.of_signal(signal))
        return skip * weight, weight


def _conv_relu(in_channels: int, channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, padding=size // 2),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
