"""A network from elsewhere as the first step of a pipeline."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

torch = pytest.importorskip("torch")

from hybridseg import DenseCRF, GraphCut, PretrainedSegmenter, Scene  # noqa: E402
from hybridseg.datasets import load_folder, read_image  # noqa: E402
from hybridseg.networks import ESPNet, UNet, adapt  # noqa: E402

DATA = Path(os.environ.get("HYBRIDSEG_DATA", "absent"))


class Brightness(torch.nn.Module):
    """Logits of three outputs from the first channel: dark, medium, bright."""

    def forward(self, images):
        grey = images[:, :1]
        return torch.cat([-grey, -(grey - 128).abs(), grey - 255], dim=1) / 10


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (13, 18, 3), dtype=np.uint8)


def test_a_pipeline_predicts_without_fit(image):
    model = PretrainedSegmenter(Brightness(), [7, 3, 5])
    expected = np.select([image[..., 0] < 64, image[..., 0] < 192], [7, 3], 5)
    found = model.predict([image])[0]
    sure = np.abs(np.mod(image[..., 0].astype(int), 128) - 64) > 1  # no tie between two outputs
    np.testing.assert_array_equal(found[sure], expected[sure])
    for refiner in (DenseCRF(bilateral_weight=0.0, spatial_weight=0.0), GraphCut(weight=0.0)):
        refined = make_pipeline(model, refiner).predict([image])[0]
        np.testing.assert_array_equal(refined[sure], expected[sure])


def test_costs_are_those_of_the_logits(image):
    model = PretrainedSegmenter(Brightness(), range(3))
    colors = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    logits = Brightness()(colors)[0].permute(1, 2, 0).numpy()
    expected = Scene.from_logits(image, logits)
    np.testing.assert_allclose(model.transform([image])[0].unary, expected.unary, atol=1e-5)
    assert model.predict_proba([image])[0].sum(-1) == pytest.approx(1)


def test_outputs_are_left_out_or_joined(image):
    all_three = PretrainedSegmenter(Brightness(), [0, 1, 2]).predict_proba([image])[0]
    without = PretrainedSegmenter(Brightness(), [-1, 1, 2])
    expected = all_three[..., 1:] / all_three[..., 1:].sum(-1, keepdims=True)
    np.testing.assert_allclose(without.predict_proba([image])[0], expected, rtol=1e-3, atol=1e-6)
    assert without.classes_.tolist() == [1, 2]
    joined = PretrainedSegmenter(Brightness(), [4, 9, 4])
    found = joined.predict_proba([image])[0]
    np.testing.assert_allclose(found[..., 0], all_three[..., [0, 2]].sum(-1), atol=1e-5)
    assert joined.classes_.tolist() == [4, 9]


def test_the_network_comes_back_as_it_was(image):
    network = UNet(width=4, depth=2).train()
    network.extra = torch.nn.Dropout().eval()
    before = copy.deepcopy(network.state_dict())
    PretrainedSegmenter(network, range(2)).predict([image])
    assert network.training
    assert not network.extra.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_evaluation_mode_is_used(image):
    network = torch.nn.Sequential(Brightness(), torch.nn.Dropout(0.5)).train()
    found = PretrainedSegmenter(network, range(3)).transform([image, image])
    np.testing.assert_array_equal(found[0].unary, found[1].unary)
    plain = PretrainedSegmenter(Brightness(), range(3)).transform([image])
    np.testing.assert_array_equal(found[0].unary, plain[0].unary)


def test_it_is_cloned_searched_over_and_scored(image):
    labels = np.select([image[..., 0] < 64, image[..., 0] < 192], [0, 1], 2)
    model = make_pipeline(
        PretrainedSegmenter(Brightness(), range(3)), DenseCRF(bilateral_weight=0.0)
    )
    again = clone(model)
    assert again[0].network is not model[0].network
    search = GridSearchCV(model, {"densecrf__spatial_weight": [0.0, 1000.0]}, cv=2)
    search.fit([image] * 4, [labels] * 4)
    assert search.best_params_["densecrf__spatial_weight"] == 0.0
    assert search.score([image], [labels]) > 0.9


def test_networks_of_other_libraries_need_no_wrapping(image):
    class Coarse(torch.nn.Module):
        def forward(self, images):
            return {"logits": Brightness()(images)[..., ::2, ::2]}

    model = PretrainedSegmenter(Coarse(), range(3))
    assert model.predict([image])[0].shape == image.shape[:2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"classes": [0]}, "classes=.*; expected at least two"),
        ({"classes": [[0, 1, 2]]}, "expected one integer for each output"),
        ({"classes": [0.0, 1.0, 2.0]}, "expected one integer for each output"),
        ({"network": "unet"}, "The 'network' parameter"),
    ],
)
def test_bad_parameters_are_refused(image, options, match):
    model = PretrainedSegmenter(**({"network": Brightness(), "classes": range(3)} | options))
    with pytest.raises(ValueError, match=match):
        model.predict([image])


def test_wrong_numbers_are_refused(image):
    with pytest.raises(ValueError, match="classes has 4 values, but the network gives 3 outputs"):
        PretrainedSegmenter(Brightness(), range(4)).predict([image])
    with pytest.raises(ValueError, match=r"X\[0\] has 1 channels.* n_channels=3"):
        PretrainedSegmenter(Brightness(), range(3)).predict([image[..., 0]])
    grey = PretrainedSegmenter(Brightness(), range(3), n_channels=1)
    assert grey.predict([image[..., 0]])[0].shape == image.shape[:2]


@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="HYBRIDSEG_DATA has no weights")
def test_published_weights_and_a_crf_in_two_lines():
    weights = DATA / "weights" / "espnet" / "espnet_p_2_q_8_camvid.pth"
    network = adapt(ESPNet(n_classes=12, weights=weights), **ESPNet.inputs["camvid"])
    model = PretrainedSegmenter(network, [*range(11), -1], ignore_label=255)
    test = load_folder(DATA / "camvid", "test")
    images, truth = ([source[i] for i in range(0, 233, 58)] for source in (test.X, test.y))
    assert 0.45 < model.score(images, truth) < 0.75
    crf = DenseCRF(bilateral_weight=3.0, bilateral_width=30.0, bilateral_color=5.0)
    refined = make_pipeline(model, crf).predict(images[:2])
    right = [np.mean(a == b) for a, b in zip(refined, map(np.asarray, truth[:2]), strict=True)]
    assert np.mean(right) > 0.7
    assert refined[0].shape == read_image(images[0]).shape[:2]
