import pickle

import numba
import numpy as np
import pytest
from skimage import data
from skimage.transform import resize
from sklearn.base import clone

from hybridseg import DenseCRF, Scene
from hybridseg.inference.mean_field.dense_crf import mean_field
from hybridseg.inference.mean_field.dense_model import DenseModel
from hybridseg.kernels._compile import MIN_ELEMENTS_FOR_THREADS
from hybridseg.kernels.dense.dense_filter import read_one, smooth, spread_one, tables_for
from hybridseg.pairwise import BilateralKernel, FeatureKernel, GaussianKernel, dense_energy
from hybridseg.pairwise.dense import dense_kernels
from tests.oracles.dense import mean_field as oracle
from tests.oracles.lattice import apply, build_by_kernels

DEFAULTS = {
    "spatial_weight": 3.0,
    "spatial_width": 3.0,
    "bilateral_weight": 10.0,
    "bilateral_width": 80.0,
    "bilateral_color": 13.0,
}


def photograph(name="astronaut", shape=(24, 32)):
    return (resize(getattr(data, name)(), shape, anti_aliasing=True) * 255).astype(np.uint8)


def noisy_costs(image, n_labels=4, seed=0):
    """Costs that favor a label by gray value, with noise of the same size."""
    wanted = (image.mean(axis=-1) * n_labels / 256).astype(int)
    noise = np.random.default_rng(seed).gumbel(size=(*wanted.shape, n_labels))
    return (noise - np.eye(n_labels)[wanted]).astype(np.float32)


def reference(unary, image, make_matrix, n_iter=10, compatibility=None, **parameters):
    n_labels = unary.shape[-1]
    colors = image.reshape(*unary.shape[:-1], -1).astype(np.float32)
    terms = [
        (kernel.weight, oracle.normalized(make_matrix(kernel.embed(colors))))
        for kernel in dense_kernels(**(DEFAULTS | parameters))
    ]
    matrix = 1 - np.eye(n_labels) if compatibility is None else compatibility
    return oracle.mean_field(
        unary.reshape(-1, n_labels).astype(np.float64), terms, matrix, n_iter
    ).reshape(unary.shape)


def filtered(model, values):
    """The model's kernels applied to every column of ``values`` (n, K)."""
    tables = tables_for(model.filter, 1)
    out = np.empty_like(values)
    for column, result in zip(values.T, out.T, strict=True):
        of_one = np.empty(len(values), np.float32)
        spread_one(np.ascontiguousarray(column), *model.filter[:2], tables.parts)
        smooth(model.filter, model.weights, tables)
        read_one(*model.filter[:2], tables.table, of_one)
        result[:] = of_one
    return out


@pytest.fixture(scope="module")
def unary_and_image():
    image = photograph()
    return noisy_costs(image), image


@pytest.mark.parametrize(
    "parameters", [{}, {"bilateral_width": 10.0}, {"spatial_weight": 0.0}, {"n_iter": 3}]
)
def test_equals_the_lattice_oracle(parameters):
    image = photograph("coffee", (15, 21))
    unary = noisy_costs(image)
    found = mean_field(unary, image, **parameters).marginals
    expected = reference(unary, image, oracle.lattice_matrix, **parameters)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_approximates_the_true_gaussians(name):
    """The error of the lattice is bounded by the values in the docstring of mean_field."""
    image = photograph(name)
    unary = noisy_costs(image)
    found = mean_field(unary, image).marginals
    exact = reference(unary, image, oracle.gaussian_matrix)
    assert np.abs(found - exact).mean() < 0.043
    assert (found.argmax(-1) == exact.argmax(-1)).mean() > 0.92
    judged = [dense_energy(q.argmax(-1), unary, image) for q in (-unary, exact, found)]
    assert judged[2] < judged[0] - 0.9 * (judged[0] - judged[1])


@pytest.mark.parametrize(
    ("kernel", "limit"), [(GaussianKernel(1.0, 3.0), 0.1), (BilateralKernel(1.0, 80.0, 13.0), 0.2)]
)
def test_approximates_the_rows_of_the_kernels(unary_and_image, kernel, limit):
    features = kernel.embed(unary_and_image[1].astype(np.float32))
    exact = oracle.normalized(oracle.gaussian_matrix(features))
    model = DenseModel.build([kernel], unary_and_image[1].astype(np.float32))
    rows = filtered(model, np.eye(len(features), dtype=np.float32))
    assert np.abs(rows - exact).sum(axis=1).mean() < limit


def test_agrees_with_the_published_implementation():
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image = np.ascontiguousarray(data.coffee()[100:260, 200:400])
    unary = noisy_costs(image, n_labels=5)
    height, width, n_labels = unary.shape
    peer = densecrf.DenseCRF2D(width, height, n_labels)
    peer.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, n_labels).T))
    peer.addPairwiseGaussian(sxy=3, compat=3)
    peer.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    expected = np.array(peer.inference(10)).T.reshape(unary.shape)
    found = mean_field(unary, image).marginals
    exact = in_64_bits(unary, image)
    assert np.abs(found - exact).max() <= 2e-5
    # Rounding in pydensecrf moves pixels near a tie by more than the tolerance; its distance from
    # the same computation in 64 bits is added to it.
    rounding = np.abs(expected - exact)
    assert (np.abs(found - expected) <= 1e-4 + 1.1 * rounding).all()
    assert np.abs(found - expected).mean() <= 1e-5
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.999


def in_64_bits(unary, image):
    """The marginals after ten iterations with the same lattices in float64."""
    lattices = []
    for kernel in dense_kernels(**DEFAULTS):
        features = kernel.embed(image.astype(np.float32))
        lattice = build_by_kernels(features)
        scale = np.sqrt(kernel.weight / apply(lattice, np.ones((len(features), 1))))
        lattices.append(lattice._replace(weights=lattice.weights * scale))
    rows = unary.reshape(-1, unary.shape[-1]).astype(np.float64)
    marginals = oracle.softmax(-rows)
    for _ in range(10):
        marginals = oracle.softmax(sum(apply(each, marginals) for each in lattices) - rows)
    return marginals.reshape(unary.shape)


def test_constant_in_constant_out():
    """Divided by its row sums n, a kernel maps a constant to itself: K 1 / n = 1.

    In the symmetric form N^-1/2 K N^-1/2 the fixed vector is the square root of n.
    """
    colors = photograph().astype(np.float32)
    kernel = BilateralKernel(1.0, 80.0, 13.0)
    sums = apply(build_by_kernels(kernel.embed(colors)), np.ones((24 * 32, 1)))
    out = filtered(DenseModel.build([kernel], colors), np.sqrt(sums))
    np.testing.assert_allclose(out, np.sqrt(sums), rtol=1e-5)


def test_matrix_compatibility(unary_and_image, rng):
    matrix = rng.random((4, 4))
    matrix += matrix.T
    unary, image = unary_and_image
    found = mean_field(unary, image, compatibility=matrix, n_iter=5).marginals
    expected = reference(unary, image, oracle.lattice_matrix, 5, matrix)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_potts_as_a_matrix_is_potts(unary_and_image):
    by_name = mean_field(*unary_and_image).marginals
    by_matrix = mean_field(*unary_and_image, compatibility=1 - np.eye(4)).marginals
    np.testing.assert_array_equal(by_name, by_matrix)
    # the same matrix up to a constant
    shifted = mean_field(*unary_and_image, compatibility=-np.eye(4)).marginals
    np.testing.assert_allclose(shifted, by_name, rtol=0, atol=1e-4)


def test_marginals_are_probabilities(unary_and_image):
    marginals = mean_field(*unary_and_image).marginals
    assert marginals.min() >= 0
    np.testing.assert_allclose(marginals.sum(axis=-1), 1, atol=1e-5)


def test_no_iteration_and_no_kernel_give_the_softmax(unary_and_image):
    unary, image = unary_and_image
    expected = oracle.softmax(-unary.astype(np.float64))
    none = mean_field(unary, image, n_iter=0)
    assert (none.n_iter, none.converged, none.changes) == (0, False, ())
    np.testing.assert_allclose(none.marginals, expected, atol=1e-6)
    bare = mean_field(unary, image, spatial_weight=0.0, bilateral_weight=0.0)
    np.testing.assert_allclose(bare.marginals, expected, atol=1e-6)


def test_one_pixel_one_label_and_a_constant_image(rng):
    one = mean_field(np.array([[[1.0, 2.0]]]), np.zeros((1, 1), np.uint8), n_iter=1)
    own = 13 * oracle.softmax(np.array([-1.0, -2.0]))  # the pixel is its own only neighbor
    np.testing.assert_allclose(
        one.marginals[0, 0], oracle.softmax(np.array([-1.0, -2.0]) + own), rtol=1e-5
    )
    single = mean_field(rng.random((3, 5, 1)), np.zeros((3, 5, 3), np.uint8))
    np.testing.assert_array_equal(single.marginals, np.ones((3, 5, 1), np.float32))
    unary = noisy_costs(np.full((9, 14, 3), 90, np.uint8))
    flat = mean_field(unary, np.full((9, 14, 3), 90, np.uint8)).marginals
    expected = reference(unary, np.full((9, 14, 3), 90), oracle.lattice_matrix)
    np.testing.assert_allclose(flat, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_channels", [1, 3, 7])
def test_any_number_of_channels(n_channels, rng):
    image = rng.integers(0, 256, (7, 9, n_channels), dtype=np.uint8)
    unary = rng.random((7, 9, 3)).astype(np.float32) * 5
    parameters = {"bilateral_color": 60.0}
    found = mean_field(unary, image, **parameters).marginals
    expected = reference(unary, image, oracle.lattice_matrix, **parameters)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_volumes_and_spacing(rng):
    image = rng.integers(0, 256, (4, 6, 8), dtype=np.uint8)
    unary = rng.random((4, 6, 8, 2)).astype(np.float32) * 5
    found = mean_field(unary, image, bilateral_color=60.0).marginals
    expected = reference(unary, image, oracle.lattice_matrix, bilateral_color=60.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    doubled = mean_field(
        unary,
        image,
        bilateral_color=60.0,
        spacing=2.0,
        spatial_width=6.0,
        bilateral_width=160.0,
    ).marginals
    np.testing.assert_allclose(doubled, found, atol=1e-6)
    stretched = mean_field(unary, image, bilateral_color=60.0, spacing=(9.0, 1.0, 1.0)).marginals
    assert np.abs(stretched - found).max() > 0.01


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64, bool])
def test_dtypes_and_layouts(dtype, rng):
    levels = rng.integers(0, 2, (8, 11, 3))
    unary = rng.random((8, 11, 2))
    expected = mean_field(unary, (levels * 255).astype(np.uint8)).marginals
    scaled = levels * (65535 if dtype == np.uint16 else 1)
    image = np.asfortranarray(scaled.astype(dtype))[::-1][::-1]
    image.setflags(write=False)
    costs = np.asfortranarray(unary)
    costs.setflags(write=False)
    np.testing.assert_allclose(mean_field(costs, image).marginals, expected, atol=1e-5)


def test_arguments_are_not_written_to(unary_and_image):
    unary, image = unary_and_image[0].copy(), unary_and_image[1].copy()
    mean_field(unary, image)
    np.testing.assert_array_equal(unary, unary_and_image[0])
    np.testing.assert_array_equal(image, unary_and_image[1])


def test_one_thread_equals_two():
    n_threads = numba.get_num_threads()
    if n_threads == 1:
        pytest.skip("numba has one thread only")
    image = photograph(shape=(130, 127))
    unary = noisy_costs(image)
    assert unary.size >= MIN_ELEMENTS_FOR_THREADS  # smaller problems use one thread
    try:
        numba.set_num_threads(1)
        one = mean_field(unary, image, n_iter=3, tol=1e-30)
    finally:
        numba.set_num_threads(n_threads)
    two = mean_field(unary, image, n_iter=3, tol=1e-30)
    np.testing.assert_array_equal(one.marginals, two.marginals)
    assert len(one.changes) == 3
    assert one.changes == two.changes


def test_relabeling_commutes(unary_and_image):
    unary, image = unary_and_image
    order = np.array([3, 0, 2, 1])
    renamed = mean_field(unary[..., order], image).marginals
    np.testing.assert_allclose(renamed, mean_field(unary, image).marginals[..., order], atol=1e-5)


@pytest.mark.parametrize(
    "turn",
    [lambda a: a[:, ::-1], lambda a: a[::-1], lambda a: a.swapaxes(0, 1)],
    ids=["left-right", "up-down", "transposed"],
)
def test_flips_and_transposition_commute_within_the_approximation(unary_and_image, turn):
    unary, image = unary_and_image
    turned = mean_field(turn(unary), turn(image)).marginals
    expected = turn(mean_field(unary, image).marginals)
    assert np.abs(turned - expected).mean() < 0.04
    assert (turned.argmax(-1) == expected.argmax(-1)).mean() > 0.92


def test_invalid_pixels_act_like_a_cropped_image(unary_and_image):
    unary, image = unary_and_image
    valid = np.zeros(image.shape[:2], bool)
    valid[:15] = True
    broken = image.astype(np.float32) / 255
    cut = mean_field(unary[:15], broken[:15]).marginals
    broken[~valid] = np.nan
    found = mean_field(unary, broken, valid=valid).marginals
    np.testing.assert_array_equal(found[:15], cut)
    np.testing.assert_array_equal(found[15:], np.float32(0.25))


def test_scattered_invalid_pixels_equal_dropped_ones(unary_and_image, rng):
    unary, image = unary_and_image
    valid = rng.random(image.shape[:2]) < 0.6
    found = mean_field(unary, image, valid=valid).marginals[valid]
    colors = image.astype(np.float32)
    terms = []
    for kernel in dense_kernels(**DEFAULTS):
        kept = kernel.embed(colors)[valid.ravel()]
        terms.append((kernel.weight, oracle.normalized(oracle.lattice_matrix(kept))))
    expected = oracle.mean_field(unary[valid].astype(np.float64), terms, 1 - np.eye(4), 10)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nothing_valid_is_uniform(unary_and_image):
    result = mean_field(*unary_and_image, valid=np.zeros((24, 32), bool))
    np.testing.assert_array_equal(result.marginals, np.float32(0.25))
    assert result.n_iter == 0


def test_stops_when_nothing_changes(unary_and_image):
    long = mean_field(*unary_and_image, n_iter=45, tol=1e-30)
    short = mean_field(*unary_and_image, n_iter=45, tol=1e-3)
    assert len(long.changes) == long.n_iter == 45
    assert not long.converged
    assert short.converged
    assert short.n_iter < 45
    assert short.changes == long.changes[: short.n_iter]
    assert short.changes[-1] < 1e-3 <= min(short.changes[:-1])
    assert not mean_field(*unary_and_image, n_iter=2, tol=1e-6).converged
    silent = mean_field(*unary_and_image, n_iter=45)
    assert (silent.n_iter, silent.changes, silent.converged) == (45, (), False)
    np.testing.assert_array_equal(silent.marginals, long.marginals)


def test_kernels_add_up(unary_and_image):
    unary, image = unary_and_image
    colors = image.astype(np.float32)
    twice = mean_field(
        unary,
        image,
        spatial_weight=0.0,
        bilateral_weight=0.0,
        kernels=[
            GaussianKernel(3.0, 3.0),
            FeatureKernel(10.0, BilateralKernel(1.0, 80.0, 13.0).embed(colors).reshape(24, 32, 5)),
            FeatureKernel(0.0, np.zeros((24, 32, 1))),
        ],
    ).marginals
    np.testing.assert_allclose(twice, mean_field(unary, image).marginals, atol=1e-6)


def test_smooths_specks_and_keeps_the_edge():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 180
    truth = (image[..., 0] > 0).astype(int)
    unary = np.where(np.eye(2, dtype=bool)[truth], 0.3, 0.9)
    unary[np.random.default_rng(0).random(truth.shape) < 0.2] = (0.6, 0.5)
    np.testing.assert_array_equal(mean_field(unary, image).marginals.argmax(-1), truth)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_iter": -1}, ValueError, "n_iter=-1"),
        ({"n_iter": 2.5}, TypeError, "n_iter=2.5"),
        ({"tol": -0.1}, ValueError, "tol=-0.1"),
        ({"spatial_width": 0.0}, ValueError, "spatial_width=0"),
        ({"bilateral_weight": -1.0}, ValueError, "bilateral_weight=-1"),
        ({"compatibility": "pots"}, ValueError, "compatibility='pots'"),
        ({"spacing": (1.0, 1.0, 1.0)}, ValueError, "spacing="),
        ({"valid": np.ones((2, 2), bool)}, ValueError, r"valid has shape \(2, 2\)"),
        ({"image": np.zeros((32, 24), np.uint8)}, ValueError, r"unary has shape \(24, 32, 4\)"),
        ({"unary": np.zeros((4, 24, 32))}, ValueError, r"np.moveaxis\(unary, 0, -1\)"),
        ({"unary": np.zeros((24 * 32, 4))}, ValueError, r"unary has shape \(768, 4\)"),
        ({"unary": np.full((24, 32, 4), np.nan)}, ValueError, "unary holds NaN"),
        ({"image": np.full((24, 32), np.nan)}, ValueError, "image holds 768 NaN"),
        ({"kernels": ["gaussian"]}, TypeError, r"kernels\[0\] is a str"),
        ({"bilateral_color": 1e-15}, ValueError, "BilateralKernel returns features up to .*color"),
        ({"bilateral_color": 1e-44}, ValueError, "BilateralKernel returns NaN or infinite"),
        ({"compatibility": np.full((4, 4), 1e300)}, ValueError, "overflow in float32"),
    ],
)
def test_bad_arguments(unary_and_image, change, error, message):
    given = {"unary": unary_and_image[0], "image": unary_and_image[1]}
    with pytest.raises(error, match=message):
        mean_field(**(given | change))


#: The defaults of the function.
PAPER = {
    "spatial_weight": 3.0,
    "spatial_width": 3.0,
    "bilateral_weight": 10.0,
    "bilateral_width": 80.0,
    "bilateral_color": 13.0,
}


def test_estimator_equals_the_function(unary_and_image):
    unary, image = unary_and_image
    scene = Scene.from_logits(image, -unary, classes=[2, 3, 5, 9], spacing=(2.0, 1.0))
    crf = DenseCRF(
        **PAPER | {"bilateral_color": 20.0}, n_iter=4, kernels=(GaussianKernel(1.0, 5.0),)
    )
    expected = mean_field(
        unary,
        image,
        bilateral_color=20.0,
        n_iter=4,
        kernels=(GaussianKernel(1.0, 5.0),),
        spacing=(2.0, 1.0),
    ).marginals
    for model in (crf, clone(crf), pickle.loads(pickle.dumps(crf))):
        np.testing.assert_allclose(model.predict_proba([scene])[0], expected, atol=1e-5)
        labels = np.array([2, 3, 5, 9])[expected.argmax(-1)]
        np.testing.assert_array_equal(model.predict([scene])[0], labels)


def test_estimator_uses_what_the_scene_knows(unary_and_image):
    unary, image = unary_and_image
    valid = np.zeros(image.shape[:2], bool)
    valid[:, :20] = True
    wide = image.astype(np.int32)
    scene = Scene.from_logits(wide, -unary, valid=valid, intensity_range=(0, 255))
    found = DenseCRF(**PAPER).predict_proba([scene])[0]
    expected = mean_field(unary, image, valid=valid).marginals
    np.testing.assert_allclose(found, expected, atol=1e-5)
    other = DenseCRF(**PAPER, intensity_range=(0, 2550)).predict_proba([scene])[0]
    narrow = mean_field(unary, image, valid=valid, bilateral_color=130.0).marginals
    np.testing.assert_allclose(other, narrow, atol=1e-4)
