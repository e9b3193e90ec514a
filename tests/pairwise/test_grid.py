import numpy as np
import pytest

from hybridseg.features import region_graph, region_means
from hybridseg.pairwise import Energy, GridTerm, energy, grid_weights, region_weights
from tests.oracles import energy as oracle


def random_image(shape=(5, 7, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def written_out(image, weight, sigma, connectivity, spacing):
    """The formula, edge by edge; sigma None is "auto"."""
    colors = image.astype(float).reshape(*image.shape[: len(spacing)], -1)
    shape = colors.shape[:-1]
    pairs = []
    for p in np.ndindex(*shape):
        for step in np.ndindex(*(3,) * len(shape)):
            offset = tuple(s - 1 for s in step)
            q = tuple(a + b for a, b in zip(p, offset, strict=True))
            inside = all(0 <= x < n for x, n in zip(q, shape, strict=True))
            if p < q and inside and 0 < np.abs(offset).sum() <= connectivity:
                distance = np.linalg.norm(np.multiply(offset, spacing)) / min(spacing)
                pairs.append((p, q, ((colors[p] - colors[q]) ** 2).sum(), distance))
    sigma = sigma or np.sqrt(np.mean([square for _, _, square, _ in pairs]))
    return {
        (p, q): weight * np.exp(-square / (2 * sigma**2)) / distance
        for p, q, square, distance in pairs
    }


@pytest.mark.parametrize("sigma", [None, 40.0])
@pytest.mark.parametrize(
    ("shape", "connectivity", "n_offsets"),
    [
        ((5, 7, 3), 1, 2),
        ((5, 7), 2, 4),
        ((3, 4, 5, 2), 1, 3),
        ((3, 4, 5, 1), 2, 9),
        ((3, 4, 5, 1), 3, 13),
        ((1, 6, 3), 2, 4),
    ],
)
def test_weights_equal_the_formula(shape, connectivity, n_offsets, sigma):
    image = random_image(shape)
    rank = 3 if len(shape) == 4 else 2
    spacing = (2.0, 0.5, 1.5)[:rank]
    found = grid_weights(
        image, weight=3.0, contrast=sigma or "auto", connectivity=connectivity, spacing=spacing
    )
    assert len(found) == n_offsets
    expected = written_out(image, 3.0, sigma, connectivity, spacing)
    edges = oracle.grid_edges(found, shape[:rank])
    assert len(edges) == len(expected)
    for p, q, w in edges:
        assert w == pytest.approx(expected[min(p, q), max(p, q)], rel=1e-5)


def test_with_connectivity_one_the_entries_are_one_array_per_axis():
    found = grid_weights(random_image((2, 4, 5, 3)))
    assert list(found) == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert [w.shape for w in found.values()] == [(1, 4, 5), (2, 3, 5), (2, 4, 4)]
    assert all(w.dtype == np.float32 for w in found.values())


def test_contrast_none_and_constant_images_give_uniform_weights():
    for image, contrast in [(random_image(), None), (np.full((5, 7), 9, np.uint8), "auto")]:
        for offset, w in grid_weights(image, weight=4, contrast=contrast, connectivity=2).items():
            np.testing.assert_allclose(w, 4 / np.hypot(*offset), rtol=1e-6)


def test_the_scale_of_the_image_does_not_matter():
    image = random_image()
    for other in (image / 255, (image / 255).astype(np.float32), image.astype(np.uint16) * 257):
        for a, b in zip(grid_weights(image).values(), grid_weights(other).values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


def test_flipping_and_transposing_commute():
    image = random_image()
    rows, columns = grid_weights(image).values()
    np.testing.assert_allclose(grid_weights(image[::-1])[1, 0], rows[::-1], rtol=1e-6)
    np.testing.assert_allclose(grid_weights(image.transpose(1, 0, 2))[1, 0], columns.T, rtol=1e-6)
    diagonal = grid_weights(image, connectivity=2)
    flipped = grid_weights(image[:, ::-1], connectivity=2)
    np.testing.assert_allclose(flipped[1, -1], diagonal[1, 1][:, ::-1], rtol=1e-6)


def test_pixels_that_are_not_valid_have_no_edges_and_do_not_set_the_contrast():
    image = random_image((5, 7)).astype(float) / 255
    valid = np.ones((5, 7), bool)
    valid[:, 4:] = False
    spoilt = np.where(valid, image, np.nan)
    found = grid_weights(spoilt, valid=valid)
    alone = grid_weights(image[:, :4])
    np.testing.assert_allclose(found[1, 0][:, :4], alone[1, 0], rtol=1e-5)
    np.testing.assert_allclose(found[0, 1][:, :3], alone[0, 1], rtol=1e-5)
    assert not found[1, 0][:, 4:].any()
    assert not found[0, 1][:, 3:].any()


def test_one_pixel_has_no_edges():
    assert [w.size for w in grid_weights(np.zeros((1, 1)), connectivity=2).values()] == [0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1}, "weight=-1; expected a number >= 0"),
        ({"contrast": "strong"}, "contrast='strong'; expected one of 'auto'"),
        ({"contrast": 0}, "contrast=0; expected a number > 0"),
        ({"connectivity": 3}, "connectivity=3"),
        ({"connectivity": 0}, "connectivity=0"),
        ({"spacing": (1, 2, 3)}, "spacing="),
        ({"image": np.full((3, 4), np.nan)}, "image holds"),
        ({"valid": np.ones((2, 2), bool)}, r"valid has shape \(2, 2\)"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        grid_weights(**({"image": random_image()} | change))


def test_region_weights_equal_the_formula():
    regions = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 1]])
    colors = np.array([[0.0, 0.0], [30.0, 40.0], [0.0, 10.0]])
    i, j, w = region_weights(region_graph(regions), colors, weight=2.0, contrast=25.0)
    assert [i.tolist(), j.tolist()] == [[0, 0, 1], [1, 2, 2]]
    lengths, squares = np.array([2, 2, 2]), np.array([2500, 100, 1800])
    np.testing.assert_allclose(w, 2 * lengths * np.exp(-squares / (2 * 625)), rtol=1e-6)
    automatic = region_weights(region_graph(regions), colors)[2]
    np.testing.assert_allclose(
        automatic, lengths * np.exp(-squares / (2 * (squares * lengths).sum() / 6)), rtol=1e-6
    )


def test_regions_and_pixels_have_one_energy_without_contrast():
    rng = np.random.default_rng(1)
    regions = np.repeat(np.repeat(np.arange(6).reshape(2, 3), 2, axis=0), 3, axis=1)
    image, unary = random_image((4, 9, 3)), rng.integers(0, 9, (4, 9, 3))
    sums = np.stack([np.bincount(regions.ravel(), u) for u in unary.reshape(-1, 3).T], axis=1)
    edges = region_weights(
        region_graph(regions), region_means(image, regions), weight=2, contrast=None
    )
    labels = rng.integers(0, 3, 6)
    pixels = energy(labels[regions], unary, grid_weights(image, weight=2, contrast=None))
    assert energy(labels, sums, edges) == pixels


def test_one_region_has_no_edges():
    found = region_weights(region_graph(np.zeros((2, 3), int)), [[1.0]])
    assert [array.size for array in found] == [0, 0, 0]


def test_a_region_without_a_color_is_named():
    graph = region_graph([[0, 1, 2]])
    with pytest.raises(ValueError, match=r"colors has shape \(2, 1\).*each of the 3 regions"):
        region_weights(graph, [[1.0], [2.0]])


def test_tiny_contrasts_do_not_overflow():
    image = np.zeros((10, 7))
    image[0, 0] = 1e-21
    for options in ({}, {"contrast": 1e-300}, {"contrast": 1e-20}):
        weights = grid_weights(image, **options)
        for array in weights.values():
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
            assert (array[2:] == 1).all()  # equal colors
    assert grid_weights(image, contrast=1e-20)[0, 1][0, 0] < 1e-30


@pytest.mark.parametrize("shape", [(7, 9), (3, 5, 6)])
def test_a_grid_term_between_regions_has_the_energy_of_the_pixels(rng, shape):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    regions = rng.integers(0, 5, shape)
    regions.ravel()[:5] = np.arange(5)
    valid = rng.random(shape) < 0.9
    term = GridTerm(2.0, connectivity=2)
    known = {"image": image, "valid": valid, "spacing": range(1, len(shape) + 1)}
    whole = Energy(np.zeros((*shape, 3)), [term], **known)
    flat = Energy(np.zeros((5, 3)), [term], regions=regions, **known)
    for _ in range(5):
        labels = rng.integers(0, 3, 5)
        assert flat.energy(labels) == pytest.approx(whole.energy(labels[regions]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight=-1"),
        ({"contrast": "much"}, "contrast='much'"),
        ({"connectivity": 0}, "connectivity=0"),
    ],
)
def test_bad_grid_terms_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GridTerm(**options)


def test_a_connectivity_beyond_the_axes_is_named():
    with pytest.raises(ValueError, match="connectivity=3"):
        _ = Energy(np.zeros((2, 3, 2)), [GridTerm(1.0, None, 3)]).edges


def test_a_term_has_the_defaults_of_its_weights():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    term = Energy(np.zeros((3, 4, 2)), [GridTerm()], image=image).edges
    for group, weight in zip(term, grid_weights(image).values(), strict=True):
        np.testing.assert_array_equal(group.weight, weight)
