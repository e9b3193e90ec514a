"""Parameters of a dense CRF in a module: exact at the start, positive, kept by state dicts."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg.deep.crf_layer import CRFLayer  # noqa: E402
from hybridseg.deep.crf_parameters import PARTS  # noqa: E402

PARAMS = {
    "unary_weight": 0.7,
    "spatial_weight": 1.3,
    "spatial_width": 2.1,
    "bilateral_weight": 3.7,
    "bilateral_width": 31.0,
    "bilateral_color": 9.3,
    "compatibility": np.array([[0, 1, 0.3], [1, 0.1, 2], [0.3, 2, -0.2]]),
    "label_bias": np.array([0.1, -0.3, 0]),
}


def moved(layer, seed=0):
    """The layer after all its parameters moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return layer


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_given_values_come_back_exactly():
    assert same(CRFLayer.from_params(PARAMS, 3).to_params(), PARAMS)


def test_moved_values_come_back():
    found = moved(CRFLayer.from_params(PARAMS, 3, learn=PARTS)).to_params()
    again = CRFLayer.from_params(found, 3).to_params()
    assert same(again, found)
    assert not same(found, PARAMS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_at_the_start_do_not_depend_on_the_dtype(dtype):
    assert same(CRFLayer.from_params(PARAMS, 3).to(dtype).to_params(), PARAMS)


def copies(layer):
    loaded = CRFLayer(3, label_bias=[1, 2, 3])
    loaded.load_state_dict(layer.state_dict())
    return [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded]


def test_copies_have_the_same_values():
    layer = moved(CRFLayer.from_params(PARAMS, 3))
    for other in copies(layer):
        assert same(other.to_params(), layer.to_params())


def test_a_state_dict_is_read_with_weights_only(tmp_path):
    layer = moved(CRFLayer.from_params(PARAMS, 3))
    torch.save(layer.state_dict(), tmp_path / "crf.pt")
    other = CRFLayer(3)
    other.load_state_dict(torch.load(tmp_path / "crf.pt", weights_only=True))
    assert same(other.to_params(), layer.to_params())


def test_a_state_dict_of_other_kernels_is_refused():
    state = CRFLayer(3, spatial_weight=0).state_dict()
    with pytest.raises((RuntimeError, ValueError), match="size mismatch|values at the start"):
        CRFLayer(3).load_state_dict(state)


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        ("weights", {"log_unary_factor", "log_weight_factors"}),
        (
            "all",
            {"log_unary_factor", "log_weight_factors", "log_width_factors", "compatibility_offset"},
        ),
        (("bias",), {"bias_offset"}),
        ((), set()),
    ],
)
def test_what_is_learned(learn, expected):
    layer = CRFLayer(3, learn=learn)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == expected


def test_the_compatibility_stays_symmetric():
    compatibility = moved(CRFLayer(4)).compatibility.detach()
    assert torch.equal(compatibility, compatibility.mT)


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_values_stay_positive_and_finite(size):
    layer = CRFLayer(3, learn="all")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += size
    for values in (layer.weights, layer.widths, layer.unary_weight):
        assert bool(((values > 0) & values.isfinite()).all())


def test_one_compatibility_for_each_kernel():
    matrices = np.stack([1 - np.eye(3), 2 - 2 * np.eye(3)])
    layer = CRFLayer(3, compatibility=matrices)
    assert np.array_equal(layer.compatibility.detach().numpy(), matrices)
    with pytest.raises(ValueError, match="a DenseCRF cannot store them"):
        layer.to_params()
    with pytest.raises(ValueError, match="for each of the 1 kernels"):
        CRFLayer(3, compatibility=matrices, spatial_weight=0)


def test_features_do_not_fit_a_dense_crf():
    with pytest.raises(ValueError, match="a DenseCRF cannot store them"):
        CRFLayer(3, feature_weight=1.0).to_params()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_iters": 3}, "params has n_iters"),
        ({"kernels": ()}, "params has kernels"),
        ({"spatial_width": "auto"}, "no number for spatial_width"),
    ],
)
def test_params_without_equivalent_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CRFLayer.from_params(PARAMS | changes, 3)


def test_missing_widths_are_refused():
    with pytest.raises(ValueError, match="no number for bilateral_color"):
        CRFLayer.from_params({k: v for k, v in PARAMS.items() if k != "bilateral_color"}, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 0}, "n_classes=0"),
        ({"spatial_weight": -1.0}, "spatial_weight=-1"),
        ({"bilateral_color": 0.0}, "bilateral_color=0"),
        ({"feature_width": 0.0}, "feature_width=0"),
        ({"unary_weight": 0.0}, "unary_weight=0"),
        ({"compatibility": np.eye(2)}, r"compatibility has shape \(2, 2\)"),
        ({"label_bias": [0.0]}, "label_bias="),
        ({"label_bias": [0.0, float("nan"), 1.0]}, "label_bias="),
        ({"learn": "everything"}, "learn='everything'"),
        ({"learn": ("weight",)}, r"learn has \['weight'\]"),
        ({"n_iter": -1}, "n_iter=-1"),
        ({"n_iter_eval": -1}, "n_iter_eval=-1"),
        ({"backend": "numba"}, "backend='numba'"),
    ],
)
def test_wrong_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CRFLayer(**{"n_classes": 3, **options})


def test_repr_shows_the_values():
    assert "spatial=3, bilateral=5, widths=(3, 80, 13)" in repr(CRFLayer(21))
