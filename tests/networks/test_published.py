"""Published weights load under this package's names and give the published scores."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hybridseg.datasets import load_folder, read_image
from hybridseg.metrics import iou_per_class
from hybridseg.networks import ESPNet, ESPNetv2, adapt
from hybridseg.networks.espnet import _RENAMES as ESPNET_RENAMES
from hybridseg.networks.espnetv2 import _RENAMES as ESPNETV2_RENAMES
from hybridseg.networks.espnetv2 import _dilations
from hybridseg.networks.published import load_published, rename

DATA = Path(os.environ.get("HYBRIDSEG_DATA", "absent"))
needs_data = pytest.mark.skipif(
    not (DATA / "weights").is_dir(), reason="HYBRIDSEG_DATA has no weights"
)
ESPNET = DATA / "weights" / "espnet"
ESPNETV2 = DATA / "weights" / "edgenets_espnetv2"

#: Some published names, and the names in this package.
NAMES = [
    (ESPNET_RENAMES, "encoder.level1.conv.weight", "encoder.first.conv.weight"),
    (ESPNET_RENAMES, "encoder.b2.act.weight", "encoder.norm2.act.weight"),
    (ESPNET_RENAMES, "encoder.level2_0.d8.conv.weight", "encoder.down2.branches.3.weight"),
    (ESPNET_RENAMES, "encoder.level3_0.bn.bias", "encoder.down3.norm.bn.bias"),
    (ESPNET_RENAMES, "encoder.level3.7.bn.bn.bias", "encoder.stage3.7.norm.bn.bias"),
    (ESPNET_RENAMES, "encoder.classifier.conv.weight", "score3.weight"),
    (ESPNET_RENAMES, "combine_l2_l3.1.c1.conv.weight", "mix.1.reduce.weight"),
    (ESPNET_RENAMES, "up_l2.1.bn.running_var", "up2.1.bn.running_var"),
    (
        ESPNETV2_RENAMES,
        "base_net.level3_0.eesp.proj_1x1.bn.weight",
        "encoder.down3.unit.reduce.bn.weight",
    ),
    (
        ESPNETV2_RENAMES,
        "base_net.level4.6.spp_dw.2.conv.weight",
        "encoder.stage4.6.branches.2.weight",
    ),
    (ESPNETV2_RENAMES, "base_net.level4.6.module_act.weight", "encoder.stage4.6.act.weight"),
    (ESPNETV2_RENAMES, "bu_dec_l2.merge_layer.2.cbr.1.bias", "pyramid2.mix.bn.bias"),
    (ESPNETV2_RENAMES, "bu_dec_l1.br.br.1.weight", "pyramid1.last.act.weight"),
    (ESPNETV2_RENAMES, "merge_enc_dec_l3.wt_layer.1.weight", "skip3.weigh.1.weight"),
]


@pytest.mark.parametrize(("renames", "theirs", "ours"), NAMES)
def test_names_are_translated_and_ours_are_left_alone(renames, theirs, ours):
    assert list(rename({f"module.{theirs}": 1}, renames)) == [ours]
    assert list(rename({ours: 1}, renames)) == [ours]


def test_names_that_a_network_lacks_are_dropped():
    assert rename({"base_net.level2_0.eesp.module_act.weight": 1}, ESPNETV2_RENAMES) == {}


@pytest.mark.parametrize("network", [ESPNet, ESPNetv2])
def test_our_own_names_pass_all_renames(network):
    names = set(network(n_classes=6).state_dict())
    renames = ESPNET_RENAMES if network is ESPNet else ESPNETV2_RENAMES
    assert set(rename(dict.fromkeys(names, 1), renames)) == names


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("network", "options"),
    [(ESPNet, {"depths": (1, 1)}), (ESPNetv2, {"scale": 0.5, "depths": (1, 1)})],
)
def test_weights_go_through_a_file(tmp_path, network, options, suffix):
    first = network(n_classes=7, **options).eval()
    path = tmp_path / f"weights{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save(first.state_dict(), path)
    again = network(n_classes=7, weights=path, **options).eval()
    images = torch.rand(1, 3, 20, 31)
    with torch.inference_mode():
        assert torch.equal(again(images), first(images))
    other = network(n_classes=9, encoder_weights=path, **options)
    for name, tensor in other.encoder.state_dict().items():
        assert torch.equal(tensor, first.encoder.state_dict()[name]), name


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "espnet.pth"
    torch.save(ESPNet(n_classes=7).state_dict(), path)
    with pytest.raises(ValueError, match=r"does not fit ESPNet: .* have another shape, .*\(12, "):
        ESPNet(n_classes=12, weights=path)
    with pytest.raises(ValueError, match=r"fit Linear: 2 tensors are missing .* \d+ are unknown"):
        load_published(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="is not a file; expected the path of a state dict"):
        ESPNet(n_classes=7, weights=tmp_path / "absent.pth")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list; expected a state dict"):
        load_published(torch.nn.Linear(2, 2), path)


def test_files_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        load_published(torch.nn.Linear(2, 2), tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_dilations_stay_within_the_widest_window():
    assert _dilations(13) == _dilations(9) == [1, 2, 3, 4]
    assert _dilations(7) == [1, 1, 2, 3]


def test_few_classes_get_a_decoder_that_is_wide_enough():
    network = ESPNet(n_classes=2).eval()
    assert network.score3.out_channels == 5
    with pytest.raises(ValueError, match="scale=0.25"):
        ESPNetv2(scale=0.25)


@needs_data
def test_camvid_weights_segment_camvid():
    """The score is over ten test images; all give the published one (``benchmarks pretrained``)."""
    network = ESPNet(n_classes=12, weights=ESPNET / "espnet_p_2_q_8_camvid.pth")
    network = adapt(network, **ESPNet.inputs["camvid"]).eval()
    test = load_folder(DATA / "camvid", "test")
    found = [labels_of(network, read_image(test.X[i])) for i in range(0, 233, 24)]
    truth = [np.asarray(test.y[i]) for i in range(0, 233, 24)]
    # the network sometimes predicts a twelfth class, void, which the truth never has
    assert np.nanmean(iou_per_class(truth, found)[:11]) == pytest.approx(0.57, abs=0.05)


@needs_data
def test_cityscapes_weights_see_roads_and_sky():
    network = ESPNet(n_classes=20, image_in_fusion=False, weights=ESPNET / "espnet_p_2_q_8.pth")
    network = adapt(network, **ESPNet.inputs["cityscapes"]).eval()
    test = load_folder(DATA / "camvid", "test")
    labels = labels_of(network, read_image(test.X[100]))
    truth = np.asarray(test.y[100])  # 0 sky, 3 road
    assert (labels[truth == 3] == 0).mean() > 0.8


@needs_data
@pytest.mark.parametrize(("scale", "least"), [(0.5, 0.86), (1.0, 0.89), (2.0, 0.9)])
def test_voc_weights_segment_voc(scale, least):
    path = ESPNETV2 / f"espnetv2_s_{scale}_pascal_384x384.pth"
    network = ESPNetv2(n_classes=21, scale=scale, weights=path)
    network = adapt(network, **ESPNetv2.inputs["imagenet"]).eval()
    photos = load_folder(DATA / "voc2012_7")
    right = [
        (labels_of(network, read_image(image)) == np.asarray(truth)).mean()
        for image, truth in zip(photos.X, photos.y, strict=True)
    ]
    assert np.mean(right) > least


@needs_data
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_cityscapes_weights_of_the_second_network_fit(scale):
    path = ESPNETV2 / f"espnetv2_s_{scale}_city_1024x512.pth"
    network = ESPNetv2(n_classes=20, scale=scale, weights=path)
    network = adapt(network, **ESPNetv2.inputs["imagenet"]).eval()
    test = load_folder(DATA / "camvid", "test")
    labels = labels_of(network, read_image(test.X[100]))
    assert (labels[np.asarray(test.y[100]) == 3] == 0).mean() > 0.8


def labels_of(network, image):
    colors = torch.from_numpy(np.asarray(image, np.float32)[..., :3]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return network(colors)[0].argmax(0).numpy()
