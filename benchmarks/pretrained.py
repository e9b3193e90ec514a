"""Networks with published weights, scored on real data as their authors did.

Needs HYBRIDSEG_DATA. CamVid (233 test images): the authors' ESPNet, alone and refined by a dense
CRF, and their Cityscapes networks without any training on CamVid. PASCAL VOC: the authors'
ESPNetv2 on seven images.
"""

import os
import time
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline

from hybridseg import DenseCRF, PretrainedSegmenter
from hybridseg.datasets import load_folder
from hybridseg.metrics import confusion_table
from hybridseg.networks import ESPNet, ESPNetv2, adapt

#: A narrow kernel, chosen on validation images; wide ones swallow poles and pedestrians.
CRF = {
    "spatial_weight": 3.0,
    "spatial_width": 3.0,
    "bilateral_weight": 3.0,
    "bilateral_width": 30.0,
    "bilateral_color": 5.0,
}
#: The class of CamVid for each class of Cityscapes; the last is void.
CITYSCAPES_AS_CAMVID = (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10, -1)


def report(title, model, data, n_classes):
    """Print mean IoU over the classes (void pixels ignored), pixel accuracy, seconds per image."""
    tables, start = [], time.perf_counter()
    for image, truth in zip(data.X, data.y, strict=True):
        found = model.predict([image])[0]
        tables.append(confusion_table(np.asarray(truth), found, ignore_label=255))
    seconds = (time.perf_counter() - start) / len(tables)
    table = sum(tables)
    iou = table.iou[table.labels < n_classes]
    print(
        f"{title:<52}{100 * np.nanmean(iou):>7.2f}{100 * table.pixel_accuracy:>9.2f}"
        f"{seconds:>8.2f} s",
        flush=True,
    )
    return iou


def camvid_espnet(data: Path) -> PretrainedSegmenter:
    """The authors' ESPNet for CamVid's 11 classes, without its class void."""
    network = ESPNet(n_classes=12, weights=data / "weights/espnet/espnet_p_2_q_8_camvid.pth")
    return PretrainedSegmenter(adapt(network, **ESPNet.inputs["camvid"]), [*range(11), -1])


def on_camvid(data: Path) -> None:
    test = load_folder(data / "camvid", "test")
    print(f"CamVid, {len(test.names)} test images{'':<25}mIoU  accuracy  image")
    without_void = camvid_espnet(data)
    as_published = PretrainedSegmenter(without_void.network, range(12))
    report("ESPNet, as published: 12 classes", as_published, test, 11)
    alone = report("ESPNet, without its class void", without_void, test, 11)
    refined = report("  with DenseCRF", make_pipeline(without_void, DenseCRF(**CRF)), test, 11)
    cityscapes = {
        "ESPNet": adapt(
            ESPNet(
                n_classes=20,
                image_in_fusion=False,
                weights=data / "weights/espnet/espnet_p_2_q_8.pth",
            ),
            **ESPNet.inputs["cityscapes"],
        )
    }
    for scale in (0.5, 1.0, 2.0):
        path = data / f"weights/edgenets_espnetv2/espnetv2_s_{scale}_city_1024x512.pth"
        cityscapes[f"ESPNetv2, s = {scale:g}"] = adapt(
            ESPNetv2(n_classes=20, scale=scale, weights=path), **ESPNetv2.inputs["imagenet"]
        )
    for name, network in cityscapes.items():
        model = PretrainedSegmenter(network, CITYSCAPES_AS_CAMVID)
        report(f"{name}, trained on Cityscapes only", model, test, 11)
    print("By class, ESPNet alone and with DenseCRF:")
    for name, *figures in zip(test.classes, alone, refined, strict=False):
        print(f"  {name:<20}" + "".join(f"{100 * figure:>8.1f}" for figure in figures))


def on_voc(data: Path) -> None:
    photos = load_folder(data / "voc2012_7")
    print(f"PASCAL VOC, {len(photos.names)} images{'':<28}mIoU  accuracy  image")
    for scale in (0.5, 1.0, 2.0):
        path = data / f"weights/edgenets_espnetv2/espnetv2_s_{scale}_pascal_384x384.pth"
        network = ESPNetv2(n_classes=21, scale=scale, weights=path)
        model = PretrainedSegmenter(adapt(network, **ESPNetv2.inputs["imagenet"]), range(21))
        report(f"ESPNetv2, s = {scale:g}", model, photos, 21)


def main() -> None:
    folder = os.environ.get("HYBRIDSEG_DATA")
    if folder is None:
        raise SystemExit(
            "set HYBRIDSEG_DATA to the folder that holds camvid, voc2012_7 and weights"
        )
    on_camvid(Path(folder))
    on_voc(Path(folder))


if __name__ == "__main__":
    main()
