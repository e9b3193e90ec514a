"""CRFs of edges and kernels that learn: gradients, what is refused, and held-out images."""

import numpy as np
import pytest
from sklearn.base import clone

import hybridseg
from hybridseg import CRF, GridCRF, Scene
from hybridseg.features import SLIC
from hybridseg.inference.learned import Examples
from hybridseg.inference.mean_field.term_learning import _in_box
from hybridseg.learning import Learner
from hybridseg.learning.learner import _Work
from hybridseg.metrics import mean_iou
from hybridseg.pairwise import (
    BilateralKernel,
    EdgeTerm,
    Energy,
    FeatureKernel,
    GridTerm,
    RegionTerm,
    SuperpixelCliques,
)
from hybridseg.pairwise.terms import ScaledTerm
from tests.inference.learning_problems import scene, scenes, volumes

ALL = ("weights", "compatibility", "bias")
SETTINGS = {"max_iter": 12, "random_state": 0}


def grid(what="all", **options):
    settings = SETTINGS | options.pop("settings", {})
    return GridCRF(learn=Learner(what, **settings), **options)


def crf(terms, what="all", **options):
    settings = SETTINGS | options.pop("settings", {})
    return CRF(terms, learn=Learner(what, **settings), **options)


class Columns:
    """Neighbors along a column should agree."""

    def __init__(self, weight):
        self.weight_of_all = weight

    def edges(self, sites):
        height, width = sites.shape
        return {(1, 0): np.full((height - 1, width), self.weight_of_all)}


class Rows:
    """A dense kernel under which pixels of near rows should agree."""

    weight = 0.3

    def embed(self, colors, spacing=None):
        return np.indices(colors.shape[:-1])[0].reshape(-1, 1) / 2.0


class Area:
    """Every pixel of a label has a price."""

    def messages(self, sites, marginals):
        return np.ones_like(marginals)


def work_of(refiner, X, y, n_labels=3):
    learner = refiner.learn
    examples = Examples(X, y, np.arange(n_labels), learner)
    model = refiner._learnable(examples, learner)
    return _Work(learner, model, len(X), n_labels), model


def with_regions(scenes, side=4, outside=False):
    """Scenes with square regions; with ``outside``, some columns belong to none."""
    found = []
    for each in scenes:
        rows, columns = (np.arange(n) // side for n in each.shape)
        regions = rows[:, None] * (columns.max() + 1) + columns
        if outside:
            regions[:, -5:] = -1
        found.append(each.replace(regions=regions))
    return found


def check_gradient(refiner, X, y, rng, n_labels=3, size=None):
    """Near small weights; with large ones, labels tip over and the loss is nearly a step."""
    work, model = work_of(refiner, X, y, n_labels)
    point = model.vector(model.first)
    point += rng.standard_normal(len(point)) * 0.2
    gradient = work.evaluate(point, work.everything)[1]
    assert size is None or len(point) == size
    assert (np.abs(gradient) > 1e-4).any()
    for k in range(len(point)):
        step = 5e-3 * (np.arange(len(point)) == k)
        sides = [work.evaluate(point + s * step, work.everything)[0] for s in (1, -1)]
        assert gradient[k] == pytest.approx((sides[0] - sides[1]) / 1e-2, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("objective", ["iou", "log_likelihood"])
@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("connectivity", [1, 2])
def test_gradient_on_pixels(connectivity, valid, objective, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    refiner = grid(ALL, weight=0.6, connectivity=connectivity, settings={"objective": objective})
    check_gradient(refiner, X, y, rng, size=1 + 1 + 3 + 3 + 3)


@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_gradient_on_regions(outside, valid, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    kernels = (BilateralKernel(1.0, 10.0, 30.0),)
    refiner = grid(ALL, weight=0.6, on="regions", kernels=kernels)
    check_gradient(refiner, with_regions(X, outside=outside), y, rng, size=1 + 2 + 3 + 3 + 3)


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_learning_improves_images_that_it_did_not_see(on):
    X, y = scenes(6)
    T, truth = scenes(4, first=100)
    known = {"on": on}
    if on == "regions":
        X, T = with_regions(X, side=2), with_regions(T, side=2)
        known["kernels"] = (BilateralKernel(0.5, 10.0, 30.0),)
    model = grid(**known).fit(X, y)
    alone = mean_iou(truth, GridCRF(weight=0.0, on=on).predict(T))
    assert model.learning_.strength > 0
    assert model.score(T, truth) > alone + 0.05
    plain = GridCRF(**(known | model.params_))
    for ours, theirs in zip(model.transform(T), plain.transform(T), strict=True):
        np.testing.assert_array_equal(ours.unary, theirs.unary)
    assert model.parameters_for(T[:1])[0] == {"weight": model.params_["weight"]}
    assert model.energy(T[0]).terms[0] == plain.energy(T[0]).terms[0]
    assert model.weight == "auto"
    assert not hasattr(clone(model), "params_")


def test_useless_refinement_is_refused():
    """Colors that say nothing, and thin lines: smoothing can only do harm."""
    X, y = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        truth = (np.arange(40) % 2)[:, np.newaxis].repeat(40, 1)
        image = random.integers(0, 255, (40, 40)).astype(np.uint8)
        costs = random.gumbel(size=(40, 40, 2)) * 0.7 - 1.5 * np.eye(2)[truth]
        X.append(Scene(image, unary=costs.astype(np.float32), classes=[0, 1]))
        y.append(truth)
    for model in (grid(), crf([GridTerm(1.0), BilateralKernel(1.0, 5.0, 20.0)])):
        model.fit(X, y)
        assert model.learning_.strength == 0
        assert "refused" in str(model.learning_)
        for each, found in zip(X, model.predict(X), strict=True):
            np.testing.assert_array_equal(found, each.prediction)


def test_what_is_refused_on_regions_are_costs_of_regions():
    """Regions across the label's lines: the gate compares with sums of costs over regions."""
    X, y = scenes(4, noise=0.3, signal=3.0)
    X = with_regions(X, side=8)
    model = grid("weights", on="regions").fit(X, y)
    for position in range(4):
        example = work_of(model, X, y)[1].example(position, True)
        labels = GridCRF(weight=0.0, on="regions").predict(X)[position]
        np.testing.assert_array_equal(example.costs.argmin(axis=1), labels.ravel())


def test_two_labels_and_volumes(rng):
    X, y = volumes(4)
    model = grid(connectivity=2).fit(X[:3], y[:3])
    assert model.learning_.strength > 0
    assert model.score(X[3:], y[3:]) > mean_iou(y[3:], [X[3].prediction])
    check_gradient(grid(ALL, weight=0.6), X[:1], y[:1], rng, n_labels=2, size=1 + 1 + 2 + 1 + 2)


def test_a_window_has_the_weights_of_the_whole_image():
    """The contrast that is "auto" is that of the image, in windows as well."""
    each, truth = scene(0, shape=(60, 70))
    refiner = grid("weights", connectivity=2, settings={"max_pixels": 30 * 30})
    _, model = work_of(refiner, [each], [truth])
    example = model.example(0, False)
    part = example.given.energy
    assert part.shape[0] < 40
    whole = GridCRF(weight=1.0, connectivity=2).energy(each)
    costs = whole.unary
    windows = np.lib.stride_tricks.sliding_window_view(costs, part.shape, axis=(0, 1))
    (place,) = np.argwhere((windows == np.moveaxis(part.unary, -1, 0)).all(axis=(2, 3, 4)))
    for own, every in zip(part.edges, whole.edges, strict=True):
        assert own.offset == every.offset
        # The array begins where p begins, which is right of the window for steps to the left.
        cut = tuple(slice(a, a + n) for a, n in zip(place, own.weight.shape, strict=True))
        np.testing.assert_array_equal(own.weight, every.weight[cut])
    model = refiner.fit([each], [truth])
    assert model.learning_.strength > 0


def test_images_without_any_region_keep_their_costs():
    X, y = scenes(3)
    X = with_regions(X)
    X[1] = X[1].replace(regions=np.full(X[1].shape, -1))
    refiner = grid("weights", on="regions")
    _, model = work_of(refiner, X, y)
    example = model.example(1, False)
    recorded = model.record(model.vector(model.first), example)
    np.testing.assert_allclose(recorded.marginals, X[1].proba.reshape(-1, 3), atol=1e-6)
    assert not recorded.gradient(np.ones_like(recorded.marginals)).any()
    assert refiner.fit(X, y).predict(X[1:2])[0].shape == X[1].shape


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_an_image_without_valid_pixel_adds_nothing(on):
    X, y = scenes(3)
    X = with_regions(X)
    X[1] = X[1].replace(valid=np.zeros(X[1].shape, bool))
    refiner = grid(ALL, on=on)
    _, model = work_of(refiner, X, y)
    recorded = model.record(model.vector(model.first), model.example(1, False))
    assert recorded.marginals.shape == (0, 3)
    assert not recorded.gradient(recorded.marginals).any()
    assert (refiner.fit(X, y).predict(X[1:2])[0] == -1).all()


@pytest.mark.parametrize("n_iter", [0, 1])
def test_few_iterations(n_iter):
    X, y = scenes(3)
    model = grid(n_iter=n_iter).fit(X, y)
    plain = GridCRF(**({"n_iter": n_iter} | model.params_))
    np.testing.assert_array_equal(model.predict(X)[0], plain.predict(X)[0])
    assert (model.learning_.strength > 0) == (n_iter > 0)


def test_widths_are_not_learned():
    with pytest.raises(ValueError, match=r"some of \['weights', 'compatibility', 'bias'\]"):
        grid(("widths",)).fit(*scenes(2))


# -- any terms ------------------------------------------------------------------------------------


def seeded(scenes, rng):
    """Scenes in which every tenth pixel is a seed."""
    return [each.replace(seeds=np.where(rng.random(each.shape) < 0.1, 1, -1)) for each in scenes]


PIXEL_TERMS = {
    "edges and kernel": (GridTerm(0.4), BilateralKernel(0.5, 6.0, 30.0)),
    "own": (Columns(0.4), Rows()),
    "list": (EdgeTerm((np.arange(600), np.arange(600) + 90, np.full(600, 0.7))),),
    "kernel": (BilateralKernel(0.7, 6.0, 30.0),),
}


@pytest.mark.parametrize("terms", PIXEL_TERMS.values(), ids=PIXEL_TERMS)
@pytest.mark.parametrize("valid", [False, True])
def test_gradient_of_any_terms_with_seeds(terms, valid, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    check_gradient(crf(terms, ALL), seeded(X, rng), y, rng, size=1 + len(terms) + 3 + 3 + 3)


@pytest.mark.parametrize("outside", [False, True])
def test_gradient_on_regions_with_seeds(outside, rng):
    X, y = scenes(2, shape=(24, 30), valid=True)
    X = seeded(with_regions(X, side=2, outside=outside), rng)
    terms = (RegionTerm(0.2), GridTerm(0.2), Rows())
    check_gradient(crf(terms, ALL, on="regions"), X, y, rng, size=1 + 3 + 3 + 3 + 3)


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_pixels_that_seeds_decide_do_not_count(on, rng):
    X, y = scenes(2)
    X = seeded(with_regions(X, side=2), rng)
    wrong = [np.where(each.seeds >= 0, 2, truth) for each, truth in zip(X, y, strict=True)]
    refiner = crf([GridTerm(0.5)], on=on)
    first, second = (work_of(refiner, X, given)[0] for given in (y, wrong))
    point = first.best_start(first.everything)
    assert (
        first.evaluate(point, first.everything)[0] == (second.evaluate(point, second.everything)[0])
    )


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_a_crf_improves_images_that_it_did_not_see(on, rng):
    X, y = scenes(6)
    T, truth = scenes(4, first=100)
    X, T = (seeded(with_regions(each, side=2), rng) for each in (X, T))
    terms = [GridTerm(0.4), Rows(), BilateralKernel(0.3, 6.0, 30.0)]
    model = crf(terms, on=on).fit(X, y)
    alone = CRF([], on=on).fit(X).score(T, truth)
    assert model.learning_.strength > 0
    assert model.score(T, truth) > alone + 0.05
    plain = CRF(**({"on": on} | model.params_))
    for ours, theirs in zip(model.transform(T), plain.transform(T), strict=True):
        np.testing.assert_array_equal(ours.unary, theirs.unary)
    labels = plain.energy(T[0]).cheapest()
    if on == "regions":
        assert model.energy(T[0]).energy(labels) == plain.energy(T[0]).energy(labels)
    assert [each.weight for each in model.terms[::2]] == [0.4, 0.3]
    assert len(model.params_["terms"]) == 3
    assert "GridTerm(" in str(model.learning_)


def test_the_gate_judges_as_the_refiner_predicts(rng):
    """The labels that the gate compares are those of a CRF with the parameters."""
    X, y = scenes(2, valid=True)
    X = seeded(with_regions(X, side=2, outside=True), rng)
    for on in ("pixels", "regions"):
        refiner = crf([GridTerm(0.4), Rows()], ALL, on=on)
        _, model = work_of(refiner, X, y)
        point = model.vector(model.first)
        point += rng.standard_normal(len(point)) / 4
        found = model.predict(point, model.example(0, True))
        expected = CRF(**({"on": on} | model.values(point))).predict(X[:1])[0][X[0].valid]
        # The refiner keeps the seeds of single pixels as well.
        free = X[0].seeds[X[0].valid] < 0
        assert (found == expected)[free].mean() > 0.999


def test_features_of_an_image_are_cut_to_the_window():
    each, truth = scene(0, shape=(40, 50))
    own = FeatureKernel(1.0, each.image[..., np.newaxis] / 20.0)
    other = FeatureKernel(1.0, lambda colors, spacing: colors / 20.0)
    settings = {"max_pixels": 20 * 20}
    examples = [
        work_of(crf([kernel], settings=settings), [each], [truth])[1] for kernel in (own, other)
    ]
    first, second = (
        model.record(model.vector(model.first), model.example(0, False)).marginals
        for model in examples
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert len(first) <= 400


class Balance:
    """Labels that are frequent are dearer: messages that are not linear in the marginals."""

    def messages(self, sites, marginals):
        return np.broadcast_to((marginals**2).mean(axis=(0, 1)) * 5, marginals.shape)

    def messages_gradient(self, sites, marginals, slopes):
        return slopes.sum(axis=(0, 1)) * 10 * marginals / marginals[..., 0].size


CLIQUES = (SuperpixelCliques(0.4, SLIC(60), 0.5), SuperpixelCliques(0.3, truncation=1.0))


@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_the_gradient_with_cliques_and_own_messages(on, valid, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    terms = [GridTerm(0.5), *CLIQUES]
    if on == "pixels" and not valid:
        terms.append(Balance())
    X = with_regions(X, side=2) if on == "regions" else X
    refiner = crf(terms, ALL, on=on)
    check_gradient(refiner, X, y, rng, size=1 + len(terms) + 3 + 3 + 3)


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_learned_cliques_improve_images_that_they_did_not_see(on):
    X, y = scenes(6)
    T, truth = scenes(4, first=100)
    if on == "regions":
        X, T = with_regions(X, side=2), with_regions(T, side=2)
    model = crf([SuperpixelCliques(0.3, SLIC(60), 0.5)], "weights", on=on).fit(X, y)
    alone = mean_iou(truth, CRF([], on=on).predict(T))
    assert model.learning_.strength > 0
    assert model.score(T, truth) > alone + 0.05
    again = CRF(on=on, **model.params_)
    for ours, theirs in zip(model.predict(T), again.predict(T), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert isinstance(model.params_["terms"][0], SuperpixelCliques)


def test_windows_have_the_parts_of_the_cliques_of_the_image():
    each, truth = scene(0, shape=(40, 50))
    whole = np.arange(2000).reshape(40, 50) // 400  # stripes of 8 rows
    term = SuperpixelCliques(0.7, whole, 0.5)
    settings = {"max_pixels": 20 * 20}
    _, model = work_of(crf([term], settings=settings), [each], [truth])
    problem = model.example(0, False).given
    cliques = problem.energy.cliques
    rows, columns = problem.energy.shape
    assert rows * columns <= 400
    assert cliques.sizes.sum() == rows * columns
    np.testing.assert_allclose(cliques.cap, 0.7 * 0.5 * cliques.sizes)
    np.testing.assert_array_equal(np.unique(cliques.site // columns), np.arange(rows))


def test_what_cannot_be_learned_is_refused():
    X, y = scenes(2)
    with pytest.raises(TypeError, match=r"CRF\(learn=...\) needs edges\(sites\), .*but Area has"):
        crf([GridTerm(1.0), Area()]).fit(X, y)
    with pytest.raises(ValueError, match=r"expected None, because label costs join all pixels"):
        crf([GridTerm(1.0)], label_costs=[1.0, 1.0, 1.0]).fit(X, y)
    with pytest.raises(ValueError, match=r"solver='cuts'; expected .*use GraphCut\(learn=...\)"):
        crf([GridTerm(1.0)], solver="cuts").fit(X, y)
    assert CRF([GridTerm(1.0)], solver="cuts").fit(X).predict(X)[0].shape == X[0].shape


@pytest.mark.parametrize("model", [GridCRF(), CRF([])], ids=["GridCRF", "CRF"])
def test_groups_without_learning_are_those_of_the_inner_segmenter(model):
    with pytest.raises(TypeError, match="expected none without an inner segmenter"):
        model.fit(*scenes(2), groups=[0, 1])


def test_a_saved_crf_refines_as_before(tmp_path):
    pytest.importorskip("skops")
    X, y = scenes(3)
    for number, model in enumerate((grid("weights"), crf([GridTerm(0.5)]))):
        model.fit(X, y)
        hybridseg.save(model, tmp_path / f"{number}.zip")
        again = hybridseg.load(tmp_path / f"{number}.zip")
        np.testing.assert_array_equal(again.predict(X)[0], model.predict(X)[0])
        assert again.learning_.strength == model.learning_.strength


def test_any_term_with_a_window_of_its_own_is_moved_also_if_it_is_scaled(rng):
    class Rows:
        """Costs that rise from row to row of the whole image."""

        def __init__(self, start=0):
            self.start = start

        def unary_costs(self, sites, n_labels):
            rows = self.start + np.arange(sites.shape[0])
            return np.broadcast_to(rows[:, np.newaxis, np.newaxis], (*sites.shape, n_labels))

        def in_box(self, shape, box):
            return Rows(self.start + box[0].start)

    energy, box = Energy(np.zeros((6, 7, 2))), (slice(2, 5), slice(0, 7))
    inside = Energy(np.zeros((3, 7, 2))).sites
    for term, factor in ((Rows(), 1), (ScaledTerm(Rows(), 3.0), 3)):
        found = _in_box(term, energy, box).unary_costs(inside, 2)
        np.testing.assert_array_equal(found, factor * Rows().unary_costs(energy.sites, 2)[2:5])
