"""The attention U-Net of Oktay et al. (2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import check_counts, double_conv, init_he, pad_to_multiple, resize
from hybridseg.validation import check_option

__all__ = ["AttentionUNet"]


class AttentionUNet(nn.Module):
    """Attention U-Net: the decoder's features gate those of the skip connections.

    An additive attention gate compares a skip's features with those of the decoder, the gating
    signal, and multiplies each position by a number between 0 and 1, so that the decoder is shown
    only the regions that matter to it (section 2 of [1]_). :meth:`attention` gives these numbers.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    width : int
        Channels of the first level; 64, or 16 in the authors' code for volumes.
    depth : int
        How often the size is halved; 4 in the paper.
    gates : {"coarse", "equal"}
        "coarse": the paper and its code. The signal comes from the level below the skip, whose
        features are compared at that coarser size; the skip of full size is not gated; features
        are upsampled bilinearly; each level scores the classes (deep supervision) and a 1x1
        convolution mixes the scores. "equal": the form that most 2-D implementations have. The
        signal is brought to the skip's size and channels first; all skips are gated; one head.

    Notes
    -----
    2-D, where the paper segments volumes. 34 878 573 parameters for ``AttentionUNet(3, 1,
    gates="equal")``, as the widespread 2-D implementation has.

    References
    ----------
    .. [1] O. Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas. MIDL 2018,
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
        """Images ``(B, C, H, W)`` to logits ``(B, L, H, W)``."""
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
        """Each gate's weights in 0..1, ``(B, 1, h, w)``, the coarsest level first.

        They cover the image as it is continued to a multiple of the network's stride.
        """
        return self._decode(images)[1]

    def _decode(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The decoder's features of each level, and the gates' weights."""
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
    """A gate whose signal has half the size of the skip (Figure 2)."""

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
    """A gate whose signal has the size and the channels of the skip."""

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
