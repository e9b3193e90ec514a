import pytest
import torch

from hybridseg.networks import UNet


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_network_has_31_030_658_parameters():
    assert n_parameters(UNet(1, 2, batch_norm=False)) == 31_030_658


def test_with_batch_norm_the_biases_stay():
    assert n_parameters(UNet(3, 21)) == 31_044_821


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (16, 16), (17, 33), (40, 23)])
def test_logits_have_the_size_of_any_input(size, training):
    network = UNet(2, 3, width=4, depth=3).train(training)
    logits = network(torch.rand(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("channels", [1, 7])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_channels_and_depth(channels, depth):
    network = UNet(channels, 6, width=4, depth=depth).eval()
    assert network(torch.rand(2, channels, 20, 12)).shape == (2, 6, 20, 12)


def test_padding_does_not_reach_an_image_that_fits():
    network = UNet(1, 2, width=4, depth=2).eval()
    image = torch.rand(1, 1, 64, 64)
    # The padding does not change pixels that are further from the border than the receptive field.
    torch.testing.assert_close(
        network(image)[..., :12, :20], network(image[..., :61, :62])[..., :12, :20]
    )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_gradient_reaches_every_parameter(batch_norm):
    network = UNet(3, 4, width=4, depth=2, batch_norm=batch_norm)
    logits = network(torch.rand(2, 3, 24, 16))
    torch.nn.functional.cross_entropy(logits, torch.randint(0, 4, (2, 24, 16))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # Batch normalization removes a bias before it.
        redundant = batch_norm and name.endswith("bias") and parameter.grad.abs().max() < 1e-6
        assert redundant or parameter.grad.abs().max() > 0, name


def test_an_untrained_network_keeps_the_scale_of_its_input():
    network = UNet(3, 2, width=16, depth=4, batch_norm=False).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 64, 64))
    assert 0.1 < logits.std() < 10


def test_dropout_acts_while_training_only():
    network = UNet(1, 2, width=4, depth=1, batch_norm=False, dropout=0.5)
    image = torch.rand(1, 1, 16, 16)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"width": 0}, "width=0; expected a number >= 1"),
        ({"depth": -1}, "depth=-1; expected a number >= 0"),
        ({"n_classes": 0}, "n_classes=0; expected"),
        ({"in_channels": 0}, "in_channels=0; expected"),
    ],
)
def test_impossible_sizes_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        UNet(**wrong)
