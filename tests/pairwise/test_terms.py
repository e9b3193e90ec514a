"""The function energy and the solvers use all methods of a user's own terms."""

import copy
import pickle

import numpy as np
import pytest

from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.pairwise import (
    BilateralKernel,
    Cliques,
    CliqueTerm,
    EdgeTerm,
    Energy,
    FeatureKernel,
    GaussianKernel,
    GridTerm,
    RegionTerm,
    SuperpixelCliques,
    energy,
)
from hybridseg.pairwise.terms import ABILITIES, can, scaled
from tests.oracles import energy as oracle


class Columns:
    """Neighbors along a column should agree."""

    def __init__(self, weight):
        self.weight = weight

    def edges(self, sites):
        height, width = sites.shape
        return {(1, 0): np.full((height - 1, width), self.weight)}


class Area:
    """Each pixel of a label has a price."""

    def __init__(self, label, price):
        self.label, self.price = label, price

    def cost(self, sites, labels, matrix):
        counted = True if sites.counted is None else sites.counted
        return self.price * ((labels == self.label) & counted).sum()

    def messages(self, sites, marginals):
        told = np.zeros_like(marginals)
        told[..., self.label] = self.price
        return told


class Listed(tuple):
    """A term that is a sequence as well."""

    def edges(self, sites):
        return {}


class Blocks:
    """Halves of the image should agree."""

    def __init__(self, slope):
        self.slope = slope

    def cliques(self, sites):
        half = np.arange(20) // 10
        return Cliques.of_members(half, np.arange(20), [self.slope] * 2, [8 * self.slope] * 2)


class Crowd:
    """Each pixel pays for those that share its label; the messages have a gradient."""

    def cost(self, sites, labels, matrix):
        return float((np.bincount(labels.ravel(), minlength=2) ** 2) @ [0.05, 0.1])

    def messages(self, sites, marginals):
        return np.broadcast_to(marginals.sum(axis=(0, 1)) * [0.1, 0.2], marginals.shape)

    def messages_gradient(self, sites, marginals, slopes):
        return np.broadcast_to(slopes.sum(axis=(0, 1)) * [0.1, 0.2], marginals.shape)


class Rows:
    """Pixels of near rows should agree: the feature of this dense kernel is the row."""

    weight = 1.5

    def embed(self, colors, spacing=None):
        rows = np.indices(colors.shape[:-1])[0] / 0.5
        return rows.reshape(-1, 1)


@pytest.fixture
def problem(rng):
    image = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return rng.normal(0, 1, (4, 5, 2)), image


def test_a_term_with_edges_reaches_everything(problem):
    unary, image = problem
    labels = (unary[..., 0] > 0).astype(int)
    term, weights = Columns(1.5), {(1, 0): np.full((3, 5), 1.5)}
    alone = Energy(unary, [term])
    assert alone.energy(labels) == energy(labels, unary, weights)
    cut = solve_cuts(alone)
    assert cut.energy == pytest.approx(oracle.minimum(unary, columns_of(weights))[0])
    assert solve_cuts(Energy(unary, [term, GridTerm(1.0)], image=image)).converged
    for terms in ([term], [term, GaussianKernel(1.0, 2.0)], [term, Area(1, 0.5)]):
        found = solve_mean_field(Energy(unary, terms, image=image), n_iter=200, tol=1e-5)
        assert found.converged


def columns_of(weights):
    return oracle.grid_edges(weights, (4, 5))


def test_a_term_with_messages_reaches_mean_field_and_the_judge(problem):
    unary, image = problem
    dearer = unary + np.array([0.0, 0.7])
    for others in ([], [GridTerm(1.0)], [GridTerm(1.0), BilateralKernel(1.0, 4.0, 20.0)]):
        told = Energy(unary, [*others, Area(1, 0.7)], image=image)
        priced = Energy(dearer, others, image=image)
        options = {"n_iter": 300, "tol": 1e-6, "damping": 0.3}
        found, expected = (solve_mean_field(e, **options).marginals for e in (told, priced))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        labels = found.argmax(axis=-1)
        assert told.energy(labels) == pytest.approx(priced.energy(labels))


def test_a_term_with_messages_does_not_reach_cuts(problem):
    message = r"solve_cuts needs edges\(sites\) or .* of every term, but Area has none"
    with pytest.raises(TypeError, match=message):
        solve_cuts(Energy(problem[0], [Area(1, 0.7)]))
    with pytest.raises(TypeError, match=message):  # regions give edges to dense kernels only
        solve_cuts(Energy(np.eye(3), [Area(1, 0.7)], regions=[[0, 1, 2]]))


def test_a_kernel_of_the_users_own_reaches_mean_field_regions_and_the_judge(problem):
    unary, image = problem
    whole = Energy(unary, [Rows(), Columns(0.5)], image=image)
    found = solve_mean_field(whole, n_iter=100, tol=1e-4)
    assert found.converged
    labels = found.marginals.argmax(axis=-1)
    assert whole.energy(labels) < whole.energy(whole.cheapest())
    regions = np.arange(20).reshape(4, 5)
    flat = Energy(unary.reshape(20, 2), [Rows()], image=image, regions=regions)
    same = whole.with_terms([Rows()]).energy(labels)
    assert flat.energy(labels.ravel()) == pytest.approx(same, rel=1e-5)
    assert solve_cuts(flat).energy <= flat.energy(labels.ravel()) + 1e-6


def test_dense_kernels_on_pixels_do_not_reach_cuts(problem):
    unary, image = problem
    terms = [GridTerm(1.0), GaussianKernel(1.0, 2.0), Rows()]
    with pytest.raises(TypeError, match=r"but GaussianKernel and Rows have none\. .* regions=map"):
        solve_cuts(Energy(unary, terms, image=image))


def test_terms_with_a_cost_only_have_no_solver(problem):
    class Odd:
        def cost(self, sites, labels, matrix):
            return float((labels % 2).sum())

    judged = Energy(problem[0], [Odd()])
    labels = np.ones((4, 5), int)
    assert judged.energy(labels) == pytest.approx(problem[0][..., 1].sum() + 20)
    with pytest.raises(TypeError, match=r"solve_mean_field needs .*but Odd has none"):
        solve_mean_field(judged)
    with pytest.raises(TypeError, match=r"solve_cuts needs .*but Odd has none"):
        solve_cuts(judged)


def test_terms_with_messages_only_have_no_energy(problem):
    class Whisper:
        def messages(self, sites, marginals):
            return np.zeros_like(marginals)

    whispered = Energy(problem[0], [Whisper()])
    assert solve_mean_field(whispered).marginals.shape == (4, 5, 2)
    with pytest.raises(TypeError, match=r"energy\(labels\) needs .*but Whisper has none"):
        whispered.energy(np.zeros((4, 5), int))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (np.zeros((4, 5)), r"Bad.messages\(sites, marginals\) has shape \(4, 5\)"),
        (np.full((4, 5, 2), np.nan), r"Bad.messages\(sites, marginals\) holds NaN"),
    ],
)
def test_bad_messages_are_named(problem, told, message):
    class Bad:
        def messages(self, sites, marginals):
            return told

    with pytest.raises(ValueError, match=message):
        solve_mean_field(Energy(problem[0], [Bad()]))


def test_bad_edges_are_named(problem):
    class Bad:
        def edges(self, sites):
            return [np.ones((3, 5))]

    with pytest.raises(TypeError, match=r"Bad.edges\(sites\): weights holds 1 items"):
        Energy(problem[0], [Bad()]).energy(np.zeros((4, 5), int))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (GridTerm(1.0), r"terms is a GridTerm; expected a sequence"),
        ("grid", "terms is a str"),
        (Listed(), "terms is a Listed; expected a sequence"),
        (3.0, "terms is a float; expected a sequence"),
        ([3.0], r"terms\[0\] is a float; expected a term"),
        ([GridTerm], r"terms\[0\] is the class GridTerm"),
    ],
)
def test_bad_terms_are_named(problem, terms, message):
    with pytest.raises(TypeError, match=message):
        Energy(problem[0], terms)


def test_the_weight_of_a_kernel_is_checked(problem):
    class Negative(Rows):
        weight = -1.0

    with pytest.raises(ValueError, match=r"terms\[0\].weight=-1"):
        Energy(problem[0], [Negative()])
    for weight in (0.0, 0.5):
        kernel = Rows()
        kernel.weight = weight
        assert Energy(problem[0], [kernel]).terms == (kernel,)


def test_terms_that_need_an_image_or_regions_say_so(problem):
    unary, image = problem
    labels = np.zeros((4, 5), int)
    with pytest.raises(ValueError, match="image is None, but a term reads the image"):
        Energy(unary, [GridTerm(1.0)]).energy(labels)
    with pytest.raises(ValueError, match="RegionTerm joins regions"):
        Energy(unary, [RegionTerm(1.0)], image=image).energy(labels)
    with pytest.raises(ValueError, match="GridTerm joins the pixels of an image"):
        Energy(unary.reshape(20, 2), [GridTerm(1.0)]).energy(labels.ravel())
    listed = EdgeTerm(([0, 3], [1, 19], [1.0, 2.0]))  # pixels in row-major order
    labels[3, 4] = 1
    cut = Energy(unary, [listed]).energy(labels) - Energy(unary).energy(labels)
    assert cut == pytest.approx(2.0)


@pytest.mark.parametrize("with_kernel", [False, True])
def test_pixels_that_are_not_valid_pay_nothing_and_influence_no_other(rng, with_kernel):
    image = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    valid = rng.random((5, 6)) < 0.7
    terms = [Columns(1.0), GridTerm(1.0), Area(1, 0.3)]
    terms += [GaussianKernel(1.0, 1.5)] if with_kernel else []
    results = []
    for junk in (np.nan, 7.0):
        unary = np.random.default_rng(0).normal(0, 1, (5, 6, 2))
        unary[~valid] = junk
        known = Energy(unary, terms, image=image, valid=valid, label_costs=[1, 2])
        labels = np.where(valid, 1, -1)
        found = solve_mean_field(known).marginals
        np.testing.assert_allclose(found[~valid], 0.5, atol=1e-6)
        results.append((known.energy(labels), found))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


TERMS = [
    GridTerm(0.8),
    EdgeTerm({(1, 0): np.ones((3, 5))}),
    EdgeTerm(([0, 3], [7, 9], [2, 3])),
    Columns(1.5),
    GaussianKernel(1.0, 2.0),
    BilateralKernel(1.0, 4.0, 20.0),
    FeatureKernel(0.5, np.arange(20.0).reshape(4, 5, 1)),
    Rows(),
    Area(1, 0.7),
    Crowd(),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_a_scaled_term_has_the_cost_and_the_messages_of_the_term_times_the_factor(term, problem):
    unary, image = problem
    labels = (unary[..., 0] > 0).astype(int)
    alone, own, many = (
        Energy(unary, terms, image=image) for terms in ([], [term], [scaled(term, 2.5)])
    )
    base = alone.energy(labels)
    assert many.energy(labels) - base == pytest.approx(2.5 * (own.energy(labels) - base), rel=1e-5)
    twice = Energy(unary, [term, term], image=image)
    for factors in ([2.0], [4.0, 0.5]):
        changed = term
        for factor in factors:
            changed = scaled(changed, factor)
        found = solve_mean_field(Energy(unary, [changed], image=image), n_iter=3).marginals
        expected = solve_mean_field(twice, n_iter=3).marginals
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found - solve_mean_field(alone).marginals).max() > 1e-3
    none = Energy(unary, [scaled(term, 0.0)], image=image)
    assert none.energy(labels) == pytest.approx(base)


CLIQUES = [
    CliqueTerm(Cliques([0, 6, 10], range(10), [2.0, 1.0], [4.0, 2.0])),
    SuperpixelCliques(0.9, np.arange(20).reshape(4, 5) // 7, 0.8),
    Blocks(0.8),
]


@pytest.mark.parametrize("term", CLIQUES, ids=lambda term: type(term).__name__)
def test_scaled_cliques_have_the_costs_times_the_factor(term, problem):
    """Mean field differs: two equal cliques have two variables, one of twice the cost has one."""
    unary, _ = problem
    many, twice = (Energy(unary, terms) for terms in ([scaled(scaled(term, 4), 0.5)], [term, term]))
    for labels in np.random.default_rng(0).integers(0, 2, (9, 4, 5)):
        assert many.energy(labels) == pytest.approx(twice.energy(labels))
    found, expected = solve_cuts(many), solve_cuts(twice)
    assert found.energy == pytest.approx(expected.energy)
    np.testing.assert_array_equal(found.labels, expected.labels)
    told = solve_mean_field(many).marginals
    assert np.abs(told - solve_mean_field(Energy(unary)).marginals).max() > 1e-3
    none = Energy(unary, [scaled(term, 0.0)])
    assert len(none.cliques) == 0


def test_terms_with_several_abilities_are_used_once(problem):
    class Both(Columns, Blocks):
        """Edges come before cliques."""

        def __init__(self):
            self.weight, self.slope = 1.5, 0.8

    unary, image = problem
    both, edged = (Energy(unary, [term], image=image) for term in (Both(), Columns(1.5)))
    assert len(both.cliques) == 0
    labels = solve_cuts(both).labels
    np.testing.assert_array_equal(labels, solve_cuts(edged).labels)
    assert both.energy(labels) == edged.energy(labels)


def test_a_scaled_term_on_regions(problem):
    _, image = problem
    regions = np.arange(20).reshape(4, 5) // 2
    labels = np.arange(10) % 2
    for term in (RegionTerm(0.7), GridTerm(0.8), Rows(), GaussianKernel(1.0, 2.0)):
        own, many = (
            Energy(np.zeros((10, 2)), [each], image=image, regions=regions).energy(labels)
            for each in (term, scaled(term, 2.5))
        )
        assert many == pytest.approx(2.5 * own, rel=1e-5)
        assert own > 0


def test_a_scaled_term_has_only_the_abilities_of_its_term():
    for term in (Columns(1.0), Rows(), Area(1, 2.0), Blocks(1.0), Crowd()):
        assert [can(scaled(term, 2.0), each) for each in ABILITIES] == [
            can(term, each) for each in ABILITIES
        ]
    assert isinstance(scaled(GridTerm(2.0, None, 2), 0.5), GridTerm)
    assert scaled(GridTerm(2.0, None, 2), 0.5) == GridTerm(1.0, None, 2)
    again = pickle.loads(pickle.dumps(scaled(Columns(1.0), 2.0)))
    assert again.factor == 2.0
    assert copy.deepcopy(again).term.weight == 1.0
    with pytest.raises(AttributeError, match="no attribute 'color'"):
        scaled(Columns(1.0), 2.0).color  # noqa: B018
