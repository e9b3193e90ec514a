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
from hybridseg.deep import pretrained as deep_pretrained  # noqa: E402
from hybridseg.deep.prediction.inference import Inference  # noqa: E402
from hybridseg.networks import ESPNet, UNet, UNet3D, adapt  # noqa: E402
from hybridseg.unary import Views  # noqa: E402

DATA = Path(os.environ.get("HYBRIDSEG_DATA", "absent"))


class Brightness(torch.nn.Module):
    """Logits of three classes from the first channel: dark, medium and bright."""

    def forward(self, images):
        gray = images[:, :1]
        return torch.cat([-gray, -(gray - 128).abs(), gray - 255], dim=1) / 10


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


class MeshNet(torch.nn.Sequential):
    """Dilated convolutions of volumes and a classifier of voxels (Fedorov et al. 2017), small."""

    def __init__(self, dilations=(1, 2, 1), width=5, n_classes=3):
        layers, before = [], 1
        for dilation in dilations:
            convolve = torch.nn.Conv3d(before, width, 3, padding=dilation, dilation=dilation)
            layers += [convolve, torch.nn.BatchNorm3d(width), torch.nn.ReLU(), torch.nn.Dropout3d()]
            before = width
        super().__init__(*layers, torch.nn.Conv3d(width, n_classes, 1))


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 256, (11, 13, 18), dtype=np.uint8)


@pytest.fixture
def mesh_net():
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return adapt(MeshNet(), std=255.0)


def test_networks_of_volumes(volume, mesh_net):
    model = PretrainedSegmenter(mesh_net, [4, -1, 7], n_channels=1, spatial_ndim=3)
    found = model.predict_proba([volume, volume[..., None]])
    with torch.inference_mode():
        images = torch.from_numpy(volume[None, None].astype(np.float32))
        logits = copy.deepcopy(mesh_net).eval()(images)[0]
    expected = logits[[0, 2]].softmax(0).movedim(0, -1)
    for proba in found:
        np.testing.assert_allclose(proba, expected, atol=1e-5)
    refined = make_pipeline(model, GraphCut(weight=1.0)).predict([volume])[0]
    assert refined.shape == volume.shape
    assert set(np.unique(refined)) <= {4, 7}
    colors = np.repeat(volume[..., None], 2, axis=-1)
    ours = PretrainedSegmenter(UNet3D(2, 2, width=4, depth=2), [0, 1], n_channels=2, spatial_ndim=3)
    assert ours.predict([colors])[0].shape == volume.shape


def test_tiles_of_volumes_give_what_the_whole_gives(mesh_net):
    """The receptive field reaches 4 voxels, which is a quarter of the overlap."""
    volume = np.random.default_rng(0).integers(0, 256, (17, 19, 18), dtype=np.uint8)
    model = PretrainedSegmenter(mesh_net, range(3), n_channels=1, spatial_ndim=3)
    whole = model.predict_proba([volume])[0]
    tiled = clone(model).set_params(tile=17, overlap=16).predict_proba([volume])[0]
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("tta", ["mirror", Views(scales=(0.5, 1.0), mirror=(-2, -1))])
def test_views_are_those_of_inference_after_joining(image, tta):
    network = adapt(UNet(3, 4, width=4, depth=2), std=255.0).eval()
    model = PretrainedSegmenter(network, [0, 5, -1, 0], tta=tta)
    found = model.predict_proba([image])[0]

    class Joined(torch.nn.Module):
        def forward(self, images):
            logits = network(images)
            return torch.stack([logits[:, [0, 3]].logsumexp(1), logits[:, 1]], dim=1)

    views = Views() if tta == "mirror" else tta
    colors = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    scores = Inference(tta=views).scores(Joined(), colors, np.array([0, 5]))
    expected = scores.softmax(0).movedim(0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = clone(model).set_params(tta=None).predict_proba([image])[0]
    assert np.abs(plain - found).max() > 1e-4


def test_half_precision(image):
    network = adapt(UNet(3, 3, width=4, depth=2), std=255.0)
    exact = PretrainedSegmenter(network, range(3)).predict_proba([image])[0]
    half = PretrainedSegmenter(network, range(3), precision="bfloat16").predict_proba([image])[0]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.05


def test_a_copy_runs_on_another_device(image):
    network = UNet(3, 3, width=4, depth=2)
    expected = PretrainedSegmenter(network, range(3)).transform([image])[0].unary
    here = PretrainedSegmenter(network, range(3), device="cpu").transform([image])[0]
    np.testing.assert_array_equal(here.unary, expected)
    elsewhere = PretrainedSegmenter(network, range(3), device="meta").transform([image])[0]
    with pytest.raises(NotImplementedError, match="meta tensor"):  # which have no values
        elsewhere.unary  # noqa: B018
    assert all(p.device.type == "cpu" for p in network.parameters())


def test_read_only_and_strided_images(image):
    model = PretrainedSegmenter(Brightness(), range(3))
    expected = model.predict_proba([image])[0]
    for dtype in (np.uint8, np.float32, np.float64):
        scaled = image / 255 if dtype != np.uint8 else image
        given = np.asfortranarray(scaled.astype(dtype))
        given.flags.writeable = False
        np.testing.assert_allclose(model.predict_proba([given])[0], expected, atol=1e-4)
        np.testing.assert_allclose(model.predict_proba([given[::-1]])[0], expected[::-1], atol=1e-4)


def test_networks_of_other_libraries_need_no_wrapping(image):
    class Coarse(torch.nn.Module):
        def forward(self, images):
            return {"logits": Brightness()(images)[..., ::2, ::2]}

    model = PretrainedSegmenter(Coarse(), range(3))
    assert model.predict([image])[0].shape == image.shape[:2]


class Ending(torch.nn.Module):
    """The network Brightness with another layer after it."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, images):
        return self.end(Brightness()(images))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1, -1], [0, 1, 1]])
def test_a_network_that_ends_in_a_softmax_is_told_apart(image, classes, precision):
    """The user is warned before a second softmax flattens the probabilities."""
    plain = PretrainedSegmenter(Brightness(), classes).predict_proba([image])[0]
    network = Ending(lambda logits: logits.softmax(1))
    model = PretrainedSegmenter(network, classes, precision=precision)
    with pytest.warns(UserWarning, match=r"ends in a softmax.*adapt\(network, output='proba'\)"):
        flat = model.predict_proba([image])[0]
    assert np.abs(flat - plain).max() > 0.1
    cured = PretrainedSegmenter(adapt(network, output="proba"), classes).predict_proba([image])[0]
    np.testing.assert_allclose(cured, plain, atol=1e-5)


def test_a_network_that_ends_in_sigmoids_is_told_apart(image):
    network = Ending(lambda logits: (logits + 4).sigmoid())
    with pytest.warns(UserWarning, match=r"ends in sigmoids.*adapt\(network, output='sigmoid'\)"):
        PretrainedSegmenter(network, range(3)).predict([image])
    plain = PretrainedSegmenter(Brightness(), range(3)).predict_proba([image])[0]
    cured = PretrainedSegmenter(adapt(network, output="sigmoid"), range(3)).predict_proba([image])
    np.testing.assert_allclose(cured[0], plain, atol=1e-2)


@pytest.mark.parametrize(
    "end",
    [
        lambda logits: logits.log_softmax(1),
        lambda logits: logits.sigmoid() - 0.25,
        lambda logits: logits.abs() / 30,
        lambda logits: logits * 0,
        torch.relu,
    ],
)
def test_other_ends_are_taken_as_logits(image, end):
    found = PretrainedSegmenter(Ending(end), range(3)).predict_proba([image])[0]
    colors = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    expected = end(Brightness()(colors))[0].softmax(0).movedim(0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_single_output_is_made_two(image):
    """Networks of other libraries may have a single output for one class against the rest."""
    network = torch.nn.Conv2d(3, 1, 1)
    colors = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    expected = network(colors).sigmoid()[0, 0].detach()
    for given in (network, adapt(network, output="binary")):
        found = PretrainedSegmenter(given, [0, 1]).predict_proba([image])[0]
        np.testing.assert_allclose(found[..., 1], expected, atol=1e-5)
    ends = Ending(lambda logits: (logits[:, :1] + 10).sigmoid())
    with pytest.warns(UserWarning, match="ends in sigmoids"):
        PretrainedSegmenter(ends, [0, 1]).predict([image])
    cured = PretrainedSegmenter(adapt(ends, output="sigmoid"), [0, 1]).predict([image])[0]
    np.testing.assert_array_equal(cured, image[..., 0] < 100)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"classes": [0]}, "classes=.*; expected at least two"),
        ({"classes": [[0, 1, 2]]}, "expected one integer for each output"),
        ({"classes": [0.0, 1.0, 2.0]}, "expected one integer for each output"),
        ({"network": "unet"}, "The 'network' parameter"),
        ({"overlap": 4}, "overlap=4, but tile=None"),
        ({"tile": 4, "overlap": 4}, "overlap=4, but tile=4; expected an overlap smaller"),
        ({"tile": (4, 4, 4)}, "tile=.* 2 axes"),
        ({"precision": "float16"}, "precision='float16' is for GPUs"),
        ({"device": "abacus"}, "device='abacus' cannot be used here"),
        ({"tta": "turn"}, "The 'tta' parameter"),
        ({"spatial_ndim": 4}, "The 'spatial_ndim' parameter"),
        ({"network": MeshNet()}, "spatial_ndim=2, but the network's convolutions have 3 axes"),
        (
            {"network": UNet(width=4, depth=1), "spatial_ndim": 3},
            "spatial_ndim=3, but the network's convolutions have 2 axes",
        ),
    ],
)
def test_bad_parameters_are_refused(image, options, match):
    model = PretrainedSegmenter(**({"network": Brightness(), "classes": range(3)} | options))
    with pytest.raises(ValueError, match=match):
        model.predict([image])


def test_wrong_numbers_are_refused(image):
    with pytest.raises(ValueError, match="classes has 4 values, but the network has 3 outputs"):
        PretrainedSegmenter(Brightness(), range(4)).predict([image])
    with pytest.raises(ValueError, match=r"X\[0\] has 1 channels.* n_channels=3"):
        PretrainedSegmenter(Brightness(), range(3)).predict([image[..., 0]])
    gray = PretrainedSegmenter(Brightness(), range(3), n_channels=1)
    assert gray.predict([image[..., 0]])[0].shape == image.shape[:2]


@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="HYBRIDSEG_DATA has no weights")
def test_published_weights_and_a_crf_in_two_lines():
    weights = DATA / "weights" / "espnet" / "espnet_p_2_q_8_camvid.pth"
    network = adapt(ESPNet(n_classes=12, weights=weights), **ESPNet.inputs["camvid"])
    model = PretrainedSegmenter(network, [*range(11), -1], ignore_label=255)
    test = load_folder(DATA / "camvid", "test")
    images, truth = ([source[i] for i in range(0, 233, 58)] for source in (test.X, test.y))
    assert 0.45 < model.score(images, truth) < 0.75
    crf = DenseCRF(
        spatial_weight=3.0,
        spatial_width=3.0,
        bilateral_weight=3.0,
        bilateral_width=30.0,
        bilateral_color=5.0,
    )
    refined = make_pipeline(model, crf).predict(images[:2])
    right = [np.mean(a == b) for a, b in zip(refined, map(np.asarray, truth[:2]), strict=True)]
    assert np.mean(right) > 0.7
    assert refined[0].shape == read_image(images[0]).shape[:2]


def test_one_look_at_what_a_network_ends_in(monkeypatch):
    looks = []
    monkeypatch.setattr(deep_pretrained, "warn_of_proba", looks.append)
    network = deep_pretrained.OfClasses(torch.nn.Conv2d(3, 2, 1), np.arange(2), np.arange(2))
    for _tile in range(3):
        network(torch.zeros(1, 3, 8, 8))
    assert len(looks) == 1
