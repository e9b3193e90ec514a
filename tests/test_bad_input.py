"""The errors for users' mistakes name the argument, its value and what to do."""

import numpy as np
import pytest

from hybridseg import CrossFit, DenseCRF, GraphCut, PixelClassifier, Scene
from tests.subjects import REFINERS, SEGMENTERS, deep, halves, pixels


@pytest.fixture(params=SEGMENTERS)
def model(request):
    return SEGMENTERS[request.param]()


@pytest.fixture
def fitted(model):
    return model.fit(*halves())


def test_bare_image(model, fitted):
    images, labels = halves()
    with pytest.raises(ValueError, match=r"X is one array of shape \(24, 32, 3\).*wrap it in a li"):
        model.fit(images[0], labels)
    for method in (fitted.predict, fitted.transform):
        with pytest.raises(ValueError, match=r"looks like one image; wrap it in a list: \[image"):
            method(images[0])
    with pytest.raises(ValueError, match="wrap it in a list"):
        fitted.predict(images[0][..., 0])


def test_bare_label_map(model):
    images, labels = halves()
    with pytest.raises(ValueError, match="wrap a single map in a list"):
        model.fit(images[:1], labels[0])


def test_one_path_or_scene(fitted):
    with pytest.raises(ValueError, match=r"is one path; expected a sequence"):
        fitted.predict("image.png")
    with pytest.raises(ValueError, match="X is one Scene"):
        fitted.predict(Scene(halves()[0][0]))


def test_no_sequence(fitted):
    with pytest.raises(TypeError, match="X is a int; expected a sequence"):
        fitted.predict(3)
    with pytest.raises(TypeError, match=r"X\[1\] is a NoneType"):
        fitted.predict([halves()[0][0], None])


def test_lengths_differ(model, fitted):
    images, labels = halves()
    with pytest.raises(ValueError, match="X holds 3 images but y holds 2 label maps"):
        model.fit(images, labels[:2])
    with pytest.raises(ValueError, match="X holds 3 images but y holds 2"):
        fitted.score(images, labels[:2])


def test_shapes_differ(model):
    images, labels = halves()
    labels[1] = labels[1].T
    with pytest.raises(
        ValueError, match=r"y\[1\] has shape \(22, 30\), but its image has \(30, 22"
    ):
        model.fit(images, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(model, fitted, value):
    images, labels = halves()
    images = [image / 255 for image in images]
    images[0][3, 4, 1] = value
    with pytest.raises(ValueError, match=r"1 NaN or infinite values \(the first at \(3, 4, 1\)\)"):
        model.fit(images, labels)
    with pytest.raises(ValueError, match="NaN or infinite"):
        fitted.predict(images)


def test_float_range(fitted):
    images, _ = halves()
    with pytest.raises(ValueError, match="intensity_range='dtype' expects floats in"):
        fitted.predict([image.astype(float) for image in images])


def test_wide_integers(fitted):
    with pytest.raises(ValueError, match="int64, whose range is too wide"):
        fitted.predict([image.astype(np.int64) for image in halves()[0]])


def test_float_labels(model):
    images, labels = halves()
    with pytest.raises(TypeError, match=r"y\[0\] has dtype float64; expected integers"):
        model.fit(images, [lab.astype(float) for lab in labels])


def test_all_void(model):
    images, labels = halves()
    with pytest.raises(ValueError, match="y holds no labeled pixel"):
        model.fit(images, [np.full_like(lab, -1) for lab in labels])


def test_all_void_by_name():
    images, labels = halves()
    with pytest.raises(ValueError, match="or ignore_label=255"):
        pixels(ignore_label=255).fit(images, [np.full_like(lab, 255) for lab in labels])


def test_one_class(model):
    images, labels = halves()
    with pytest.raises(ValueError, match="y holds one class only, 4; expected at least two"):
        model.fit(images, [np.full_like(lab, 4) for lab in labels])


def test_empty(model, fitted):
    with pytest.raises(ValueError, match="is empty; expected at least one"):
        model.fit([], [])
    with pytest.raises(ValueError, match="X is empty"):
        fitted.predict([])


def test_no_labels(model):
    with pytest.raises(TypeError, match="y is None|missing 1 required"):
        model.fit(halves()[0])


def test_complex_pixels(fitted):
    with pytest.raises(TypeError, match="complex64; expected boolean, integer or real"):
        fitted.predict([halves()[0][0].astype(np.complex64)])


def test_wrong_channels(fitted):
    images, _ = halves(channels=4)
    with pytest.raises(ValueError, match="has 4 channels, but .* was fitted on images with 3"):
        fitted.predict(images)


def test_channels_differ_at_fit(model):
    images, labels = halves()
    images[2] = images[2][..., :2]
    with pytest.raises(ValueError, match=r"X\[2\] has 2 channels but X\[0\] has 3"):
        model.fit(images, labels)


@pytest.mark.parametrize("refiner", REFINERS.values(), ids=REFINERS)
def test_refiner_without_costs(refiner):
    images, labels = halves()
    for method in ("predict", "transform", "fit"):
        with pytest.raises(
            ValueError, match=r"X\[0\] is a plain image, or .* refines costs. Put a segmenter"
        ):
            getattr(refiner(), method)(images)
    with pytest.raises(ValueError, match="plain image"):
        refiner().score(images, labels)
    with pytest.raises(ValueError, match="or a Scene without costs"):
        refiner().predict([Scene(images[0])])


def test_unknown_network():
    with pytest.raises(ValueError, match=r"network='unett'.*unet"):
        deep().set_params(network="unett").fit(*halves())


@pytest.mark.parametrize(
    ("estimator", "parameter", "value"),
    [
        (DenseCRF(), "n_iter", -1),
        (DenseCRF(), "bilateral_width", 0.0),
        (DenseCRF(), "bilateral_weight", -1.0),
        (DenseCRF(), "compatibility", "pots"),
        (GraphCut(), "weight", -1.0),
        (GraphCut(), "connectivity", 0),
        (GraphCut(), "solver", "magic"),
        (GraphCut(), "moves", "magic"),
        (GraphCut(), "on", "objects"),
        (PixelClassifier(), "max_samples", 0),
        (PixelClassifier(), "intensity_range", "auto"),
        (CrossFit(PixelClassifier()), "cv", 1),
        (CrossFit(PixelClassifier()), "cv", "none"),
    ],
)
def test_parameters_out_of_range(estimator, parameter, value):
    images, labels = halves()
    if hasattr(estimator, "estimator"):
        images = pixels().fit(images, labels).transform(images)
    with pytest.raises(ValueError, match=parameter):
        estimator.set_params(**{parameter: value}).fit(images, labels)


def test_classifier_without_probabilities():
    from sklearn.svm import LinearSVC

    with pytest.raises(TypeError, match=r"no predict_proba.*CalibratedClassifierCV\(LinearSVC"):
        PixelClassifier(LinearSVC()).fit(*halves())


def test_logits_with_channels_first():
    image = halves()[0][0]
    with pytest.raises(ValueError, match=r"labels seem to come first: pass np.moveaxis\(logits"):
        Scene.from_logits(image, np.zeros((5, 24, 32)))
    with pytest.raises(ValueError, match=r"logits has shape \(24, 31, 5\); expected \(24, 32, L"):
        Scene.from_logits(image, np.zeros((24, 31, 5)))


def test_logits_given_as_probabilities():
    image = halves()[0][0]
    with pytest.raises(ValueError, match="probabilities that sum to one"):
        Scene.from_proba(image, np.ones((24, 32, 5)))
    with pytest.raises(ValueError, match="logits holds NaN"):
        Scene.from_logits(image, np.full((24, 32, 5), np.nan))
    with pytest.raises(ValueError, match="expected 5 different label values"):
        Scene.from_logits(image, np.zeros((24, 32, 5)), classes=[1, 2])


def test_too_few_images_for_the_folds():
    images, labels = halves()
    with pytest.raises(ValueError, match="cv=5, but there are 3 images; expected at least 5"):
        CrossFit(pixels(), cv=5).fit_transform(images, labels)


def test_fold_with_one_class_says_where():
    images, labels = halves()
    labels = [np.where(lab == i, lab, -1) for i, lab in enumerate(labels)]
    with pytest.raises(ValueError, match="one class only") as caught:
        CrossFit(pixels(), cv=2).fit_transform(images[:2], labels[:2])
    assert "training part of fold 0" in caught.value.__notes__[0]
