"""Public names stay importable from their old places after modules moved to rooms."""

import importlib
import subprocess
import sys

import pytest

#: The public names of each module before the rooms, which README and the pages mention.
NAMES = {
    "": (
        "AutoHybrid "
        "Blend CRFLayer CrossFit DeepFeatures DeepSegmenter DenseCRF DomainAdapter GraphCut "
        "GridCRF ImageList LevelSet PixelClassifier PretrainedSegmenter Scene StackedSegmenter "
        "SuperpixelClassifier datasets features inference load metrics networks pairwise save unary"
    ),
    "datasets": (
        "LabelFile UnreadableFileError load_folder load_photos make_scenes read_image read_labels "
        "read_nifti write_labels"
    ),
    "features": (
        "ETPS Felzenszwalb PixelFeatures RegionFeatures RegionGraph SLIC etps felzenszwalb "
        "region_graph region_labels region_means region_sums slic"
    ),
    "inference": (
        "ChanVeseResult DenseCRF DenseModel DynamicCut GraphCut GraphCutResult GridCRF LevelSet "
        "MeanFieldResult RandomWalkerResult SnakeResult chan_vese graph_cut grid_mean_field "
        "mean_field morphological_chan_vese morphological_geodesic_active_contour random_walker"
    ),
    "metrics": (
        "ConfusionTable achievable_accuracy boundary_iou boundary_iou_per_class boundary_recall "
        "confusion_table expected_calibration_error iou_per_class mean_dice mean_iou "
        "pixel_accuracy undersegmentation_error"
    ),
    "networks": (
        "AttentionUNet BiSeNet DeepLabV1 DeepLabV2 DeepLabV3 DeepLabV3Plus DenseUNet ENCODERS "
        "ENet ESPNet ESPNetv2 EfficientNetLite0 Encoder FCN16s FCN32s FCN8s FPN LRASPP LiteSeg "
        "NETWORKS PSPNet ResUNet SegNet UNet UNet3D VNet adapt encoder fold_batch_norm "
        "input_statistics losses"
    ),
    "networks.losses": (
        "BoundaryDistance BoundaryWeightedCrossEntropy ClassCounts CrossEntropy DeepSupervision "
        "Focal GapWeightedCrossEntropy GeneralizedDice Loss LovaszHinge LovaszSoftmax MultiTask "
        "SoftDice SumOf Tversky count_classes effective_number gap_weights inverse_frequency "
        "log_frequency median_frequency signed_distances"
    ),
    "pairwise": (
        "BilateralKernel FeatureKernel GaussianKernel as_compatibility dense_energy "
        "dense_region_weights energy grid_weights region_weights"
    ),
    "report": (
        "Experiment Picture Row average_rows baseline_of picture_shortfalls render_html "
        "shortfalls text_table verdict write_report"
    ),
    "unary": (
        "Augmentation Blend CrossFit DeepFeatures DeepSegmenter DomainAdapter PixelClassifier "
        "PretrainedSegmenter StackedSegmenter SuperpixelClassifier Uncertainty Views plot_history"
    ),
}


@pytest.mark.parametrize("module", NAMES)
def test_names_stay_where_they_were(module):
    if module in ("", "unary") or module.startswith("networks"):
        pytest.importorskip("torch")
        pytest.importorskip("skorch")
    offers = importlib.import_module(f"hybridseg.{module}".rstrip("."))
    for name in NAMES[module].split():
        assert getattr(offers, name) is not None, f"hybridseg.{module}.{name}"
        assert name in dir(offers), f"hybridseg.{module}.{name}"


def test_a_function_is_found_where_a_room_has_its_name():
    """The function keeps its name even if the room ``mean_field`` is imported first."""
    code = (
        "import hybridseg.inference.mean_field.pruning; "
        "from hybridseg.inference import mean_field; "
        "import hybridseg.inference.mean_field.dense_crf, hybridseg.inference as inference; "
        "assert inference.mean_field is mean_field and callable(mean_field)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
