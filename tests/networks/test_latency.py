"""The assumptions of the latency benchmark."""

import itertools

import pytest
import torch
from torch import nn

from benchmarks.latency import race, table
from benchmarks.latency.pairs import Pair
from benchmarks.latency.sides import build_sides, copy_weights, pad_to


def test_a_race_runs_all_in_turns_forth_and_back():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = race(contenders, seconds=0.0, clock=itertools.count().__next__)
    assert "".join(calls) == "abccbaabccba"
    assert times == {name: [1, 1, 1] for name in "abc"}


def test_a_race_lasts_as_long_as_was_asked_for():
    now = 0.0

    def work(seconds):
        nonlocal now
        now += seconds

    contenders = {"fast": lambda: work(0.125), "slow": lambda: work(0.25)}
    times = race(contenders, seconds=2.0, clock=lambda: now)
    assert times == {"fast": [0.125] * 8, "slow": [0.25] * 8}


@pytest.mark.parametrize(("size", "padded"), [((5, 16), (8, 16)), ((3, 4, 9), (4, 4, 12))])
def test_peers_are_given_multiples_of_their_stride(size, padded):
    images = torch.ones(1, 2, *size)
    found = pad_to(images, 4)
    assert found.shape == (1, 2, *padded)
    assert found.sum() == images.sum()


class Backwards(nn.Module):
    """A network that runs its layers in another order than that of their definition."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return {"out": self.last(self.norm(self.first(images)))}


def forwards():
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))


def test_weights_go_over_in_the_order_of_execution():
    theirs, ours = Backwards().eval(), forwards().eval()
    nn.init.normal_(theirs.norm.running_mean)
    images = torch.rand(1, 3, 6, 7)
    copy_weights(theirs, ours, images)
    torch.testing.assert_close(ours(images), theirs(images)["out"], rtol=0, atol=0)


def pair(peer, **more):
    return Pair("small", forwards, "math", peer, "a peer", sizes=((9, 10),), **more)


def test_the_same_network_is_counted_and_checked():
    sides, difference = build_sides(pair(lambda *_: Backwards()), (9, 10), heavy=1.0)
    assert difference == 0
    assert set(sides) == {"ours", "peer", "folded"}
    n_weights = 3 * 3 * 9 + 2 * 3
    assert sides["ours"].parameters == sides["peer"].parameters == n_weights + 3 + 2 + 6
    assert sides["folded"].parameters == n_weights + 3 + 2
    for side in sides.values():
        assert side.gmacs == pytest.approx(n_weights * 90 / 1e9)
        assert side.run().shape == (1, 2, 9, 10)


def test_another_network_is_no_equal():
    def other(*_):
        return nn.Sequential(*forwards(), nn.ReLU())

    with pytest.raises(RuntimeError, match="small is not its peer's network: logits differ by"):
        build_sides(pair(other), (9, 10), heavy=1.0)
    sides, difference = build_sides(pair(other, differs="a ReLU"), (9, 10), heavy=0.0)
    assert difference is None
    assert set(sides) == {"ours", "peer"}


def test_the_table_has_a_line_for_each_network_and_size():
    def side(ms):
        return {"parameters": 2_500_000, "gmacs": 1.25, "least_ms": ms, "median_ms": 2 * ms}

    light = {"network": "light", "size": "9x8", "peer_name": "a peer", "differs": "a ReLU"}
    rows = [
        light | {"threads": 1, "ours": side(ms=20), "folded": side(ms=10), "peer": side(ms=30)},
        light | {"threads": 2, "ours": side(ms=10), "folded": side(ms=8), "peer": side(ms=12)},
        {"network": "heavy", "size": "9x8", "threads": 2, "ours": side(ms=1234)},
    ]
    head, rule, first, second = table({"rows": rows}).splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert "ours, ms, 1T / 2T" in head
    assert first == (
        "| light | 9x8 | 2.50 | 1.25 | 20 / 10 | 10 / 8 | a peer | 2.50 | 1.25 | 30 / 12 "
        "| 1.50 / 1.20 | 3.00 / 1.50 | a ReLU |"
    )
    assert second.startswith("| heavy | 9x8 | 2.50 | 1.25 | - / 1234 |")
