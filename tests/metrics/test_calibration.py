import numpy as np
import pytest

from hybridseg.metrics import expected_calibration_error


def brute_force(truth, proba, n_bins):
    """The mean gap of bins over pixels, computed pixel by pixel."""
    bins = {}
    for label, values in zip(truth, proba, strict=True):
        confidence = max(values)
        for b in range(n_bins):
            if b / n_bins < confidence <= (b + 1) / n_bins:
                bins.setdefault(b, []).append((int(np.argmax(values)) == label, confidence))
    gaps = [abs(sum(hit - conf for hit, conf in found)) for found in bins.values()]
    return sum(gaps) / len(truth)


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_equals_brute_force(n_bins):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=200)
    truth = rng.integers(0, 3, 200)
    found = expected_calibration_error(
        truth.reshape(10, 20), proba.reshape(10, 20, 3), n_bins=n_bins
    )
    assert found == pytest.approx(brute_force(truth, proba, n_bins))


def test_images_are_taken_together_and_void_is_left_out():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), size=(8, 9)).astype(np.float32)
    truth = rng.integers(0, 3, (8, 9))
    whole = expected_calibration_error(truth, proba)
    parts = expected_calibration_error([truth[:3], truth[3:]], [proba[:3], proba[3:]])
    assert parts == pytest.approx(whole)
    void = truth.copy()
    void[0], void[1] = -1, 255
    found = expected_calibration_error(void, proba, ignore_label=255)
    assert found == pytest.approx(expected_calibration_error(truth[2:], proba[2:]))
    assert np.isnan(expected_calibration_error(np.full((8, 9), -1), proba))


def test_label_values():
    proba = np.array([[[0.8, 0.2], [0.4, 0.6]]])
    truth = np.array([[5, 9]])
    assert expected_calibration_error(truth, proba, classes=[5, 9]) == pytest.approx(0.3)


def test_certain_and_right_is_calibrated():
    truth = np.array([[0, 1, 1]])
    assert expected_calibration_error(truth, np.eye(2)[truth]) == 0
    assert expected_calibration_error(1 - truth, np.eye(2)[truth]) == 1


@pytest.mark.parametrize(
    ("truth", "proba", "options", "match"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 2, 2)), {}, r"proba\[0\] has shape \(2, 2, 2\)"),
        ([np.zeros((2, 3), int)], [], {}, "1 label maps but proba holds 0 arrays"),
        (np.zeros((2, 3), int), np.zeros((2, 3, 2)), {"classes": [1]}, r"classes=\[1\]"),
        (np.zeros((2, 3), int), np.zeros((2, 3, 2)), {"n_bins": 0}, "n_bins=0"),
    ],
)
def test_mistakes_are_named(truth, proba, options, match):
    with pytest.raises(ValueError, match=match):
        expected_calibration_error(truth, proba, **options)
