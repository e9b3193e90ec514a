"""Counts and weights of classes, from label maps."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from hybridseg.datasets import load_folder
from hybridseg.losses import (
    CrossEntropy,
    count_classes,
    effective_number,
    inverse_frequency,
    log_frequency,
    median_frequency,
)
from tests.oracles import losses as oracle


def maps(rng, values=(0, 1, 4)):
    shapes = [(5, 6), (3, 9), (4, 4), (1, 1)]
    found = [rng.choice([-2, *values], size=shape) for shape in shapes]
    found[1][found[1] == 4] = 0
    return found


def test_counts_equal_loops(rng):
    y = maps(rng)
    counts = count_classes(y)
    assert counts.classes.tolist() == [0, 1, 4]
    expected = oracle.class_counts(y, [0, 1, 4])
    np.testing.assert_array_equal([counts.pixels, counts.pixels_around, counts.images], expected)


def test_counts_of_parts_add_up(rng):
    y = maps(rng)
    whole, parts = count_classes(y), count_classes(y[:2]) + count_classes(y[2:])
    for name in ("classes", "pixels", "pixels_around", "images"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    apart = count_classes([[[0]]]) + count_classes([[[7, 7]]])
    assert apart.classes.tolist() == [0, 7]
    assert apart.pixels.tolist() == [1, 2]
    with pytest.raises(TypeError, match="unsupported operand"):
        whole + 1


def test_counts_of_given_classes(rng):
    counts = count_classes(iter([[[0, 255, 2]], [[-1, 2, 2]]]), range(4), ignore_label=255)
    assert counts.pixels.tolist() == [1, 0, 3, 0]
    assert counts.pixels_around.tolist() == [2, 0, 4, 0]
    assert counts.images.tolist() == [1, 0, 2, 0]
    volumes = count_classes([rng.integers(0, 2, (3, 4, 5)), np.ones((2, 2), dtype=bool)])
    assert volumes.pixels.sum() == 64


def test_weights_by_hand():
    """Two images: 6 + 2 pixels of class 0, 2 of class 1 in the first, none of class 2."""
    counts = count_classes([[[0] * 6 + [1] * 2], [[0] * 2]], range(3))
    assert inverse_frequency(counts).tolist() == pytest.approx([10 / 24, 10 / 6, 0])
    assert median_frequency(counts).tolist() == pytest.approx([0.525 / 0.8, 0.525 / 0.25, 0])
    assert log_frequency(counts, c=1.1).tolist() == pytest.approx(
        [1 / np.log(1.9), 1 / np.log(1.3), 1 / np.log(1.1)]
    )
    raw = np.array([0.5 / (1 - 0.5**8), 0.5 / (1 - 0.5**2)])
    assert effective_number(counts, beta=0.5).tolist() == pytest.approx([*raw / raw.mean(), 0])


def test_inverse_frequency_is_scikit_learns_balanced(rng):
    values = rng.integers(0, 3, 200)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=values)
    np.testing.assert_allclose(
        inverse_frequency(count_classes([values[None]])), expected, rtol=1e-6
    )


def test_effective_number_lies_between_none_and_inverse(rng):
    counts = count_classes([np.repeat([0, 1, 2], [10_000_000, 3000, 5])[None]])
    assert effective_number(counts, beta=0).tolist() == [1, 1, 1]
    inverse = inverse_frequency(counts)
    near = effective_number(counts, beta=1 - 1e-12)
    np.testing.assert_allclose(near, inverse / inverse.mean(), rtol=1e-3)


def test_weights_go_into_losses(rng):
    y = maps(rng, (0, 1, 2))
    loss = CrossEntropy(median_frequency(count_classes(y, range(3))))
    logits = torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert float(loss(logits, torch.from_numpy(y[0])[None])) > 0


def test_median_frequency_of_camvid(data_dir):
    """The weights come from the released labels; the paper differs most for signs (9.64)."""
    data = load_folder(data_dir / "camvid", split="train")
    counts = count_classes(data.y, range(11))
    expected = [0.279, 0.202, 4.79, 0.149, 1, 0.422, 3.85, 1.97, 0.79, 6.37, 8.86]
    np.testing.assert_allclose(median_frequency(counts), expected, rtol=6e-3)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: count_classes([[[-1, -1]]]), ValueError, "y holds no labeled pixel"),
        (lambda: count_classes([[[0.5]]]), TypeError, r"y\[0\] has dtype float64"),
        (
            lambda: count_classes([[[3]]], range(2)),
            ValueError,
            r"y\[0\] holds \[3\]; expected only classes=",
        ),
        (
            lambda: count_classes(np.ones((4, 5), int)),
            ValueError,
            r"y\[0\] has shape \(5,\); .*: wrap a single map in a list",
        ),
        *(
            (
                lambda rule=rule: rule([[[0, 1]]]),
                TypeError,
                r"counts is a list; expected ClassCounts: pass count_classes\(y\)",
            )
            for rule in (inverse_frequency, median_frequency, log_frequency, effective_number)
        ),
        (lambda: count_classes([[[3]]], [2, 1]), ValueError, "expected increasing label values"),
        (lambda: log_frequency(count_classes([[[1]]]), c=1.0), ValueError, "c=1.0; .* > 1"),
        (lambda: effective_number(count_classes([[[1]]]), beta=1.0), ValueError, "1 - beta=0.0"),
    ],
)
def test_bad_counts(make, error, match):
    with pytest.raises(error, match=match):
        make()
