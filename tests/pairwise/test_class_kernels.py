"""Class-conditional kernels: exact costs, messages that are their derivative, and their widths."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from hybridseg import CRF, Scene
from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.inference.mean_field.dense_model import DenseModel
from hybridseg.learning import Learner
from hybridseg.metrics import iou_per_class
from hybridseg.pairwise import BilateralKernel, ClassKernels, Energy, GaussianKernel, dense_energy

SHAPES = [(5, 6), (3, 4, 5)]


def sites_of(rng, shape, n_labels=3, **given):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    return Energy(np.zeros((*shape, n_labels)), image=image, **given).sites


def exact(kernel, sites):
    """The normalized kernel matrix without its diagonal, (n, n)."""
    features = kernel.embed(sites.colors, sites.spacing)
    if sites.valid is not None:
        features = features[sites.valid.ravel()]
    matrix = np.exp(-0.5 * cdist(features, features, "sqeuclidean"))
    norm = 1 / np.sqrt(matrix.sum(axis=1))
    matrix *= norm[:, np.newaxis] * norm
    np.fill_diagonal(matrix, 0)
    return matrix


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cost_is_the_sum_over_all_pairs(shape, masked, rng):
    valid = rng.random(shape) < 0.7 if masked else None
    sites = sites_of(rng, shape, valid=valid, spacing=1.5)
    term = ClassKernels([1.0, 2.0, 3.0], [20.0, 40.0, 60.0], [1.0, 0.0, 2.0], weight=1.5)
    labels = rng.integers(0, 3, shape)
    seen = labels.ravel() if valid is None else labels[valid]
    expected = 0.0
    for label, (width, color, price) in enumerate([(1, 20, 1), (2, 40, 0), (3, 60, 2)]):
        matrix = 1.5 * price * exact(BilateralKernel(1.0, width, color), sites)
        own = seen == label
        expected += matrix[own][:, ~own].sum() / 2
    assert term.cost(sites, labels, np.zeros((3, 3))) == pytest.approx(expected)


def test_equal_kernels_are_one_dense_kernel(rng):
    """Costs exactly, and messages up to a constant at each site."""
    shape = (9, 11)
    sites = sites_of(rng, shape)
    term = ClassKernels([2.0] * 3, [30.0] * 3, weight=1.7)
    labels = rng.integers(0, 3, shape)
    one = dense_energy(
        labels, np.zeros((*shape, 3)), sites.colors / 255, spatial_weight=0,
        bilateral_weight=1.7, bilateral_width=2.0, bilateral_color=30.0,
    )  # fmt: skip
    assert term.cost(sites, labels, np.zeros((3, 3))) == pytest.approx(one, rel=1e-5)
    marginals = rng.dirichlet(np.ones(3), shape).astype(np.float32)
    model = DenseModel.build([BilateralKernel(1.0, 2.0, 30.0)], sites.colors)
    expected = -model.messages(marginals, np.array([1.7], np.float32))
    found = term.messages(sites, marginals)
    difference = found - expected
    np.testing.assert_allclose(difference, difference[..., :1] + np.zeros(3), atol=1e-5)


def test_messages_are_the_derivative_of_the_expected_cost(rng):
    """With wide kernels of positions, whose lattice is nearly exact."""
    shape, widths = (6, 7), [3.0, 5.0]
    sites = sites_of(rng, shape, n_labels=2)
    term = ClassKernels(widths, weights=[1.0, 2.0])
    marginals = rng.dirichlet(np.ones(2), shape)
    rows = marginals.reshape(-1, 2)
    matrices = [
        price * exact(GaussianKernel(1.0, width), sites)
        for width, price in zip(widths, (1.0, 2.0), strict=True)
    ]
    expected = np.stack([m @ (0.5 - rows[:, label]) for label, m in enumerate(matrices)], axis=1)
    own = [1 / np.exp(-0.5 * cdist(f, f, "sqeuclidean")).sum(axis=1)
           for f in (GaussianKernel(1.0, w).embed(sites.colors) for w in widths)]  # fmt: skip
    for label, price in enumerate((1.0, 2.0)):  # the lattice counts a pixel as its own neighbor
        expected[:, label] += price * own[label] * (0.5 - rows[:, label])
    found = term.messages(sites, marginals.astype(np.float32)).reshape(-1, 2)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
    np.testing.assert_allclose(found.std(), expected.std(), rtol=0.2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_the_transposed_map(shape, masked, rng):
    valid = rng.random(shape) < 0.7 if masked else None
    sites = sites_of(rng, shape, valid=valid)
    term = ClassKernels([1.0, 2.0, 2.0], [20.0, 40.0, 40.0], weight=0.8)
    marginals, slopes, step = (rng.normal(0, 1, (*shape, 3)).astype(np.float32) for _ in range(3))
    found = term.messages_gradient(sites, marginals, slopes)
    change = term.messages(sites, marginals + step) - term.messages(sites, marginals)
    assert float((found * step).sum()) == pytest.approx(float((change * slopes).sum()), rel=1e-3)
    if masked:
        assert (found[~valid] == 0).all()
        assert (term.messages(sites, marginals)[~valid] == 0).all()


def test_widths_are_in_the_unit_of_the_spacing(rng):
    shape = (8, 9)
    marginals = rng.dirichlet(np.ones(3), shape).astype(np.float32)
    image = rng.integers(0, 256, shape).astype(np.uint8)
    ways = [
        ClassKernels(widths).messages(
            Energy(np.zeros((*shape, 3)), image=image, spacing=spacing).sites, marginals
        )
        for widths, spacing in (([1.0, 2.0, 3.0], 1.0), ([10.0, 20.0, 30.0], 10.0))
    ]
    np.testing.assert_allclose(*ways, atol=1e-5)


def test_more_of_thin_things_remains_than_under_one_kernel_of_the_mean_width(rng):
    truth = np.zeros((60, 60), int)
    truth[:, 40:] = 1
    truth[:, 12:15] = 2
    term = ClassKernels.from_label_maps([truth], [0, 1, 2], color=None, weight=2.0)
    assert term.widths[2] == pytest.approx(2.7, abs=0.2)
    assert term.widths[0] > 4 * term.widths[2]
    unary = np.where(np.eye(3, dtype=bool)[truth], 0.0, 1.0) + rng.normal(0, 0.5, (60, 60, 3))
    image = np.zeros((60, 60), np.uint8)
    own, one = (
        iou_per_class(
            truth, solve_mean_field(Energy(unary, [each], image=image)).marginals.argmax(-1)
        )
        for each in (term, GaussianKernel(2.0, float(np.mean(term.widths))))
    )
    assert own[2] > one[2] + 0.1
    assert (own > iou_per_class(truth, unary.argmin(axis=-1))).all()


def test_labels_that_do_not_occur_and_void():
    labels = np.zeros((30, 30), int)
    labels[:, 15:] = -1
    found = ClassKernels.from_label_maps([labels], [0, 1, 2], color=None)
    assert found.widths[1] == found.widths[2] == found.widths[0]
    half = np.zeros((30, 30), int)
    half[:, 15:] = 1
    filled = [np.full((30, 30), 2), half]  # a map of one label has no border to measure from
    widths = ClassKernels.from_label_maps(filled, [0, 1, 2], color=None).widths
    assert widths[0] == widths[1] == widths[2]
    nothing = ClassKernels.from_label_maps([np.full((4, 5), -1)], [0, 1])
    np.testing.assert_array_equal(nothing.widths, [2.0, 2.0])


def test_its_factor_is_learned(rng):
    truth = np.zeros((16, 20), int)
    truth[:, 10:] = 1
    scenes = [
        Scene.from_logits((120 * truth).astype(np.uint8), logits + 0.8 * np.eye(2)[truth])
        for logits in rng.normal(0, 1, (4, 16, 20, 2))
    ]
    learner = Learner("weights", max_iter=10, random_state=0, cv=2)
    model = CRF([ClassKernels([2.0, 2.0], [20.0, 20.0])], learn=learner).fit(scenes, [truth] * 4)
    alone = np.mean([(scene.prediction == truth).mean() for scene in scenes])
    assert np.mean([(found == truth).mean() for found in model.predict(scenes)]) > alone + 0.05


def test_cuts_refuse_it(rng):
    energy = Energy(np.zeros((3, 4, 2)), [ClassKernels([1.0, 2.0])], image=np.zeros((3, 4)))
    with pytest.raises(TypeError, match="ClassKernels has none"):
        solve_cuts(energy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassKernels(2.0), "widths has shape"),
        (lambda: ClassKernels([1.0, 0.0]), "widths holds 0; expected finite numbers above 0"),
        (lambda: ClassKernels([1.0, 2.0], [1.0]), r"colors has shape \(1,\); expected \(2,\)"),
        (lambda: ClassKernels([1.0], weights=[-1.0]), "weights holds -1"),
        (lambda: ClassKernels([1.0], weight=-1), "weight=-1"),
        (lambda: ClassKernels.from_label_maps([[[0]]], [0, 1], reach=0), "reach=0"),
        (
            lambda: solve_mean_field(
                Energy(np.zeros((2, 3, 3)), [ClassKernels([1.0])], image=np.zeros((2, 3)))
            ),
            "1 widths for an energy of 3 labels",
        ),
        (
            lambda: solve_mean_field(
                Energy(
                    np.zeros((2, 2)), [ClassKernels([1.0, 1.0])],
                    image=np.zeros((2, 2)), regions=[[0, 0], [1, 1]],
                )
            ),
            "of regions",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
