"""Tiles cover every pixel, and their weights sum to something everywhere."""

import pytest
import torch

from hybridseg.deep.prediction.tiles import blend_weights, tile_shape, tile_windows


@pytest.mark.parametrize("tile", [(7, 9), (1, 1), (40, 5), (64, 64)])
@pytest.mark.parametrize("overlap", [None, 0])
def test_windows_cover_every_pixel_and_weights_are_positive(tile, overlap):
    shape = (40, 23)
    sizes, margins = tile_shape(tile, overlap, shape)
    total = torch.zeros(shape)
    for window in tile_windows(shape, sizes, margins):
        found = blend_weights(window, shape, margins)
        assert tuple(found.shape) == tuple(part.stop - part.start for part in window)
        assert found.min() >= 0
        total[window] += found
    assert total.min() > 0


@pytest.mark.parametrize("shape", [(37, 50), (9, 50), (37, 4), (9, 4), (16, 16)])
@pytest.mark.parametrize("overlap", [None, 0, 3])
def test_every_window_has_the_tiles_size_and_lies_inside(shape, overlap):
    sizes, margins = tile_shape((16, 12), overlap, shape)
    inside = tuple(map(max, shape, sizes))
    for window in tile_windows(inside, sizes, margins):
        for part, size, extent in zip(window, sizes, inside, strict=True):
            assert (part.stop - part.start, part.stop <= extent) == (size, True)
