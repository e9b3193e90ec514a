"""Networks that remember their arguments can be built again from them."""

import copy
import pickle

import pytest
from torch import nn

from hybridseg.networks.arguments import remember_arguments, remembered_arguments


class Line(nn.Module):
    def __init__(self, in_channels, n_classes=2, *, bias=True):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, n_classes, 1, bias=bias)


class Ray(Line):
    def __init__(self):
        super().__init__(3, bias=False)


remember_arguments(Line)


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ((3,), {}, {"in_channels": 3}),
        ((3, 5), {"bias": False}, {"in_channels": 3, "n_classes": 5, "bias": False}),
        ((), {"n_classes": 1, "in_channels": 2}, {"in_channels": 2, "n_classes": 1}),
    ],
)
def test_arguments_are_known_by_name_in_copies_and_pickles_too(arguments, options, expected):
    network = Line(*arguments, **options)
    for one in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert remembered_arguments(one) == expected
        assert repr(Line(**remembered_arguments(one))) == repr(network)


def test_remembered_arguments_are_no_part_of_the_network():
    network = Line(3)
    assert list(network.state_dict()) == ["layer.weight", "layer.bias"]
    assert [name for name, _ in network.named_modules()] == ["", "layer"]


def test_derived_classes_and_others_remember_nothing():
    """A derived class may pass any arguments to its base."""
    assert remembered_arguments(Ray()) is None
    assert remembered_arguments(nn.Conv2d(3, 2, 1)) is None


def test_wrong_arguments_are_refused_as_without_it():
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        Line(3, depth=2)
    assert Line.__init__.__wrapped__.__qualname__ == "Line.__init__"
