"""Every refiner that minimizes an energy returns that energy."""

import numpy as np
import pytest

from hybridseg import CRF, DenseCRF, GraphCut, GridCRF
from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.pairwise import BilateralKernel, Energy, GaussianKernel, GridTerm, RegionTerm
from tests.inference.test_crf import with_regions
from tests.inference.test_restraint import noisy
from tests.subjects import halves, pixels


@pytest.fixture
def scene():
    return noisy((24, 30), n_labels=3, spacing=(2.0, 1.0))[0]


REFINERS = {
    "CRF": CRF([GridTerm(1.0), GaussianKernel(1.0, 1.0)]),
    "CRF by cuts": CRF([GridTerm(1.0)], solver="cuts", label_costs=(1.0, 2.0, 3.0)),
    "CRF on regions": CRF([RegionTerm(1.0), BilateralKernel(2.0, 8.0, 20.0)], on="regions"),
    "DenseCRF": DenseCRF(),
    "DenseCRF, one given": DenseCRF(spatial_weight=0.5),
    "GridCRF": GridCRF(),
    "GridCRF on regions": GridCRF(on="regions", kernels=(GaussianKernel(1.0, 9.0),)),
    "GraphCut": GraphCut(),
    "GraphCut on regions": GraphCut(on="regions", weight=2.0),
}


@pytest.mark.parametrize("name", REFINERS)
def test_every_refiner_returns_the_energy_that_it_minimizes(scene, name):
    """The solver finds the refiner's labels from it; they cost no more than the cheapest labels."""
    model, known = REFINERS[name], with_regions(scene)
    told = model.energy(known)
    assert isinstance(told, Energy)
    soft = hasattr(model, "predict_proba")
    labels = solve_mean_field(told).marginals.argmax(-1) if soft else solve_cuts(told).labels
    found = model.predict([known])[0]
    spread = labels if told.regions is None else labels[told.regions]
    np.testing.assert_array_equal(found, spread)
    assert told.energy(labels) <= told.energy(told.cheapest())


def test_energies_have_auto_resolved(scene):
    for model, names in ((GraphCut(), ["weight"]), (GridCRF(), ["weight"]), (DenseCRF(), None)):
        (chosen,) = model.parameters_for([scene])
        told = model.energy(scene)
        if names:
            assert told.terms[0].weight == chosen["weight"]
        else:
            assert [k.weight for k in told.terms] == [
                chosen["spatial_weight"],
                chosen["bilateral_weight"],
            ]


def test_a_refiner_with_an_inner_segmenter_returns_the_energy_of_an_image():
    images, labels = halves()
    model = GraphCut(pixels(), weight=1.0).fit(images, labels)
    told, found = model.energy(images[0]), model.predict(images[:1])[0]
    assert told.energy(np.searchsorted(model.classes_, found)) <= told.energy(told.cheapest())
