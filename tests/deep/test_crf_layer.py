"""A dense CRF as a layer: equal to DenseCRF, with true gradients, for all shapes and dtypes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import cross_entropy  # noqa: E402

from hybridseg import CRFLayer, DenseCRF, Scene  # noqa: E402
from hybridseg.inference import mean_field  # noqa: E402

PARAMS = {
    "unary_weight": 0.7,
    "spatial_weight": 2.0,
    "spatial_width": 2.5,
    "bilateral_weight": 4.0,
    "bilateral_width": 20.0,
    "bilateral_color": 30.0,
}


def batch(n_labels=3, shape=(12, 15), n_images=2, n_channels=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_images, n_labels, *shape, generator=generator)
    images = torch.rand(n_images, n_channels, *shape, generator=generator)
    images[..., shape[-1] // 2 :] /= 3
    return logits.to(dtype), images


def scene_of(logits, image, **options):
    return Scene.from_logits(image.movedim(0, -1).numpy(), logits.movedim(0, -1).numpy(), **options)


def marginals(layer, *inputs, **options):
    with torch.no_grad():
        return layer(*inputs, **options).exp().movedim(1, -1).numpy()


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("shape", [(12, 15), (5, 6, 7), (1, 20), (1, 1)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_equals_dense_crf(backend, shape, n_channels):
    logits, images = batch(4, shape, n_channels=n_channels)
    params = {**PARAMS, "compatibility": 1.5 - 1.2 * np.eye(4), "label_bias": [0.3, 0, -0.2, 0]}
    layer = CRFLayer.from_params(params, 4, backend=backend).eval()
    found = marginals(layer, logits, images)
    scenes = [scene_of(*each) for each in zip(logits, images, strict=True)]
    expected = DenseCRF(**params).predict_proba(scenes)
    assert np.allclose(found, np.stack(list(expected)), atol=1e-5)


@pytest.mark.parametrize("spacing", [(0.5, 2.0), 3.0])
def test_spacing_equals_that_of_dense_crf(spacing):
    logits, images = batch()
    layer = CRFLayer.from_params(PARAMS, 3, spacing=spacing).eval()
    axes = np.broadcast_to(spacing, 2)
    scene = scene_of(logits[0], images[0]).replace(spacing=tuple(map(float, axes)))
    expected = DenseCRF(**PARAMS).predict_proba([scene])[0]
    assert np.allclose(marginals(layer, logits, images)[0], expected, atol=1e-5)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_masked_pixels_have_no_influence(backend):
    logits, images = batch()
    mask = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(1)) > 0.3
    layer = CRFLayer(3, backend=backend)
    found = marginals(layer, logits, images, mask)
    spoiled, dark = logits.clone(), images.clone()
    spoiled.movedim(1, -1)[~mask] = float("nan")
    dark.movedim(1, -1)[~mask] = float("nan")
    assert np.allclose(marginals(layer, spoiled, dark, mask), found, atol=1e-7)
    for i in range(2):
        expected = mean_field(
            -logits[i].movedim(0, -1).numpy(),
            images[i].movedim(0, -1).numpy(),
            bilateral_weight=5.0,
            n_iter=5,
            valid=mask[i].numpy(),
        )
        assert np.allclose(found[i], expected.marginals, atol=1e-5)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_gradients_stay_within_the_mask(backend):
    logits, images = batch()
    mask = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(1)) > 0.3
    logits.movedim(1, -1)[~mask] = float("nan")
    logits.requires_grad_()
    layer = CRFLayer(3, learn="all", backend=backend)
    layer(logits, images, mask).movedim(1, -1)[mask][:, 0].sum().backward()
    assert torch.equal((logits.grad != 0).any(dim=1), mask)
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_an_image_without_valid_pixels(backend):
    logits, images = batch()
    mask = torch.ones(2, 12, 15, dtype=torch.bool)
    mask[1] = False
    layer = CRFLayer(3, backend=backend)
    found = layer(logits, images, mask)
    assert torch.allclose(found[1], torch.full((), 1 / 3).log())
    assert torch.allclose(found[:1], layer(logits[:1], images[:1]), atol=1e-6)
    assert layer(logits[:0], images[:0], mask[:0]).shape == (0, 3, 12, 15)
    assert torch.allclose(layer(logits, images, mask & False), torch.full((), 1 / 3).log())


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_images_of_a_batch_do_not_meet(backend):
    logits, images = batch(n_images=3)
    layer = CRFLayer(3, backend=backend)
    alone = torch.cat([layer(logits[i : i + 1], images[i : i + 1]) for i in range(3)])
    assert torch.allclose(layer(logits, images), alone, atol=1e-5)


@pytest.mark.parametrize("n_labels", [1, 2, 3, 8, 9, 33])
@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_results_are_normalized_for_any_number_of_labels(n_labels, backend):
    logits, images = batch(n_labels, (6, 7))
    found = CRFLayer(n_labels, backend=backend)(logits, images)
    assert found.shape == logits.shape
    assert torch.allclose(found.exp().sum(dim=1), torch.ones(2, 6, 7), atol=1e-5)


def every_gradient(layer, logits, images, features, target):
    logits, features = logits.clone().requires_grad_(), features.clone().requires_grad_()
    colors = images.clone().requires_grad_()
    loss = cross_entropy(layer(logits, colors, features=features), target)
    learned = [p for p in layer.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, [logits, colors, features, *learned])


@pytest.mark.parametrize("compatibility", ["shared", "own"])
def test_gradients_of_both_backends_agree(compatibility):
    """The widths are none at which pixels lie on the border of a simplex."""
    random = np.random.default_rng(0).random((3, 3, 3))
    matrices = random + random.transpose(0, 2, 1)
    layer = CRFLayer(
        3,
        spatial_width=2.9,
        bilateral_width=13.7,
        feature_weight=1.5,
        feature_width=7.3,
        compatibility=matrices[0] if compatibility == "shared" else matrices,
        learn=("weights", "widths", "compatibility", "bias"),
    )
    logits, images = batch()
    features, _ = batch(2, seed=5)
    target = torch.randint(3, (2, 12, 15))
    found = every_gradient(layer, logits, images, features, target)
    layer.backend = "torch"
    for dtype in (torch.float32, torch.float64):
        inputs = (each.to(dtype) for each in (logits, images, features))
        exact = every_gradient(layer, *inputs, target)
        for own, other in zip(found, exact, strict=True):
            other = other.float()
            assert torch.allclose(own, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_gradcheck():
    """In float64 and for all parameters; no pixel lies on the border of a simplex."""
    logits, images = batch(3, (3, 4), 2, dtype=torch.float64)
    features, _ = batch(2, (3, 4), 2, seed=5, dtype=torch.float64)
    layer = CRFLayer(
        3,
        spatial_width=1.7,
        bilateral_width=5.3,
        bilateral_color=60.0,
        feature_weight=1.5,
        feature_width=2.9,
        n_iter=3,
        learn=("weights", "widths", "compatibility", "bias"),
    ).double()
    names = [name for name, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def solve(logits, features, *values):
        known = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, known, (logits, images, None, features))

    assert torch.autograd.gradcheck(
        solve, (logits.requires_grad_(), features.requires_grad_(), *values), fast_mode=True
    )


def test_weights_at_the_start_let_marginals_move():
    logits, images = batch()
    change = CRFLayer(3)(logits, images).exp() - logits.softmax(dim=1)
    assert float(change.detach().abs().mean()) > 0.05


def test_training_lowers_the_loss():
    logits, images = batch(n_images=1)
    target = (images[:, 0] < 0.3).long()
    layer = CRFLayer(3, learn="all")
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = cross_entropy(layer(logits, images), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("value", [1e4, 1e30, float("inf")])
@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_extreme_logits_give_no_nan(value, backend):
    logits, images = batch()
    logits[:, 0] -= value
    logits[0, 1, :3] = 1e30
    logits.requires_grad_()
    layer = CRFLayer(3, backend=backend, learn="all")
    found = layer(logits, images)
    found.clamp(min=-1e6).mean().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(logits.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_half_precision_is_computed_in_float32(dtype, backend):
    logits, images = batch(dtype=dtype)
    logits.requires_grad_()
    layer = CRFLayer(3, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(logits, images)
    assert found.dtype == torch.float32
    assert torch.equal(found, layer(logits.float(), images))
    found.mean().backward()
    assert logits.grad.dtype == dtype


def test_double_precision_is_kept():
    logits, images = batch(dtype=torch.float64)
    assert CRFLayer(3)(logits, images).dtype == torch.float64
    with pytest.raises(ValueError, match="backend='kernels', but logits are torch.float64"):
        CRFLayer(3, backend="kernels")(logits, images)


def test_memory_format_and_strides_do_not_matter():
    logits, images = batch()
    layer = CRFLayer(3)
    found = layer(logits, images)
    wide = logits.contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(wide, images.contiguous(memory_format=torch.channels_last)), found)
    assert torch.equal(layer(logits.mT.contiguous().mT, images), found)


def test_evaluation_has_its_own_number_of_iterations():
    logits, images = batch()
    layer = CRFLayer(3, n_iter=2, n_iter_eval=7)
    two, seven = CRFLayer(3, n_iter=2), CRFLayer(3, n_iter=7)
    assert torch.equal(layer(logits, images), two(logits, images))
    assert torch.equal(layer.eval()(logits, images), seven(logits, images))
    assert torch.equal(two.eval()(logits, images), two.train()(logits, images))


@pytest.mark.parametrize("options", [{"n_iter": 0}, {"spatial_weight": 0, "bilateral_weight": 0}])
def test_without_messages_only_the_softmax_remains(options):
    logits, images = batch()
    layer = CRFLayer(3, **options)
    assert torch.allclose(layer(logits, images), logits.log_softmax(dim=1), atol=1e-6)


def test_images_are_not_needed_without_the_bilateral_kernel():
    logits, images = batch()
    layer = CRFLayer(3, bilateral_weight=0)
    assert torch.equal(layer(logits), layer(logits, images))


def test_a_network_learns_through_the_layer():
    logits, images = batch(n_images=1)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    layer = CRFLayer(3, feature_weight=1.0)
    features = network(images)
    cross_entropy(
        layer(logits, images, features=features), torch.zeros(1, 12, 15).long()
    ).backward()
    assert float(network.weight.grad.abs().max()) > 0


def test_inputs_are_not_modified():
    logits, images = batch()
    mask = torch.ones(2, 12, 15, dtype=torch.bool)
    before = [each.clone() for each in (logits, images, mask)]
    CRFLayer(3)(logits, images, mask)
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, images, mask), strict=True))


def test_a_copy_in_a_network_refines_alike():
    logits, images = batch()
    layer = CRFLayer(3)
    assert torch.equal(copy.deepcopy(layer)(logits, images), layer(logits, images))


def bad_inputs():
    logits, images = batch()
    mask = torch.ones(2, 12, 15, dtype=torch.bool)
    features, _ = batch(2)
    yield "logits is int", (logits.long(), images), TypeError, "logits is torch.int64"
    yield "logits is an array", (logits.numpy(), images), TypeError, "logits is ndarray"
    yield "other classes", (logits[:, :2], images), ValueError, r"expected \(B, 3, H, W\)"
    yield "no batch", (logits[0], images[0]), ValueError, r"expected \(B, 3, H, W\)"
    yield "no images", (logits,), ValueError, "images is None"
    yield "fewer images", (logits, images[:1]), ValueError, "the same number of images"
    yield "smaller images", (logits, images[..., 1:]), ValueError, "the same size"
    yield "normalized", (logits, images * 4 - 2), ValueError, "pass image_mean and image_std"
    yield "float mask", (logits, images, mask.float()), ValueError, "mask has shape"
    yield "mask with channels", (logits, images, mask[:, None]), ValueError, "mask has shape"
    yield "features", (logits, images, None, features), ValueError, "feature_weight is 0"


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [pytest.param(*rest, id=name) for name, *rest in bad_inputs()],
)
def test_wrong_inputs_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        CRFLayer(3)(*inputs)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (None, "features is None"),
        (torch.zeros(2, 2, 3, 3), "the same size"),
        (torch.full((2, 2, 12, 15), float("nan")), "the feature kernel has features that are not"),
    ],
)
def test_wrong_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        CRFLayer(3, feature_weight=1.0)(*batch(), features=features)
