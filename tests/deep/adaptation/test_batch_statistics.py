"""Statistics of batch normalization on images of another kind, against a loop."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")
from torch import nn  # noqa: E402

from hybridseg import DomainAdapter, PretrainedSegmenter  # noqa: E402
from hybridseg.deep import BatchStatistics  # noqa: E402
from tests.deep.subjects import changed, ragged, state, two_norms  # noqa: E402
from tests.oracles.batch_statistics import adapted_statistics  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def expected_statistics(network, images):
    """The statistics by the oracle for the network of :func:`two_norms`."""

    def runs(*layers):
        def run(image):
            with torch.no_grad():
                return nn.Sequential(*layers)(torch.from_numpy(image)[None])[0].numpy()

        return run

    double = copy.deepcopy(network).double()
    return adapted_statistics(
        [np.moveaxis(image.astype(np.float64), -1, 0) for image in images],
        [
            (run, *(value.detach().numpy() for value in (norm.weight, norm.bias)), norm.eps)
            for run, norm in (
                (runs(double[0]), double[1]),
                (runs(double[2], double[3]), double[4]),
            )
        ],
    )


KINDS = {
    "images": (((9, 12), (7, 8), (16, 10)), (nn.Conv2d, nn.BatchNorm2d)),
    "volumes": (((3, 4, 7), (5, 4, 3)), (nn.Conv3d, nn.BatchNorm3d)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_equal_the_loop(rng, kind):
    shapes, layers = KINDS[kind]
    images, network = ragged(rng, shapes), two_norms(*layers)
    model = PretrainedSegmenter(network, range(3), n_channels=2, spatial_ndim=len(shapes[0]))
    adapted = DomainAdapter(model, guard=False).fit(images).segmenter_.network
    expected = expected_statistics(network, images)
    for layer, (mean, variance) in zip((adapted[1], adapted[4]), expected, strict=True):
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-4)
        np.testing.assert_allclose(layer.running_var, variance, rtol=1e-4)
    before, after = network.state_dict(), adapted.state_dict()
    names = {f"{i}.running_{what}" for i in (1, 4) for what in ("mean", "var")}
    assert changed(before, after) == names


@pytest.mark.parametrize("prior", [1, 6.0])
def test_a_prior_mixes_statistics(rng, prior):
    images, network = ragged(rng, ((9, 12), (7, 8))), two_norms()
    model = PretrainedSegmenter(network, range(3), n_channels=2)
    found = DomainAdapter(model, prior=prior, guard=False).fit(images).segmenter_.network
    share = prior / (prior + 2)
    for i, new in zip((1, 4), expected_statistics(network, images), strict=True):
        mean = share * network[i].running_mean.numpy() + (1 - share) * new[0]
        variance = share * network[i].running_var.numpy() + (1 - share) * new[1]
        np.testing.assert_allclose(found[i].running_mean, mean, rtol=1e-4)
        np.testing.assert_allclose(found[i].running_var, variance, rtol=1e-4)


def test_the_order_of_images_hardly_matters(rng):
    images = ragged(rng, ((9, 12), (7, 8), (16, 10)))
    model = PretrainedSegmenter(two_norms(), range(3), n_channels=2)
    one = state(DomainAdapter(model, guard=False).fit(images).segmenter_)
    other = state(DomainAdapter(model, guard=False).fit(images[::-1]).segmenter_)
    assert all(torch.allclose(one[name], other[name], rtol=1e-5) for name in one)


class Pooled(nn.Module):
    """Scores from the mean of an image, which has one value for each channel."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images):
        means = self.norm(images.mean((2, 3), keepdim=True))
        return torch.cat([images, images + means], dim=1)


def test_layers_with_too_few_values_stay(rng):
    images = ragged(rng, [(5, 6)] * 40)
    model = PretrainedSegmenter(Pooled(), range(4), n_channels=2)
    few = DomainAdapter(model, guard=False).fit(images[:3]).segmenter_
    assert not changed(state(model), state(few))
    many = DomainAdapter(model, guard=False).fit(images).segmenter_
    means = np.array([image.mean((0, 1)) for image in images])
    np.testing.assert_allclose(many.network.norm.running_mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(many.network.norm.running_var, means.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("prior", "error", "match"),
    [(-1.0, ValueError, "prior=-1.0"), ("many", TypeError, "prior='many'")],
)
def test_mistakes_are_named(prior, error, match):
    with pytest.raises(error, match=match):
        BatchStatistics(prior)
