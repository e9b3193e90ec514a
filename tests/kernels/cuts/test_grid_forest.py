"""The forest grows by breadth-first search; once repaired, it holds all that the source reaches."""

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.cuts.grid_forest import (
    LOST,
    ROOT,
    STEP,
    grow,
    make_room,
    mend,
    need,
    orphan,
)
from tests.kernels.cuts.grids import SHAPES, excess_of, filled, network_of, problem
from tests.oracles.cuts import grid_forest as oracle


@kernel
def room_of(n_nodes):
    return make_room(n_nodes)


@kernel
def grown(forest, queue, level, top):
    room = make_room(forest.excess.size)
    for k in range(queue.size):
        room.now[k] = queue[k]
    return grow(forest, room, queue.size, level, top), room


@kernel
def listed(forest, nodes, levels, lost):
    """Put nodes in the lists of waiting nodes: as orphans if ``lost``, else as needy nodes."""
    room = make_room(forest.excess.size)
    for k in range(nodes.size):
        if lost[k]:
            orphan(forest, room, nodes[k], levels[k])
        else:
            need(room, nodes[k], levels[k])
    return room


@kernel
def mended(forest, needy, rootless):
    """Repair a forest in which some nodes became deficits and some roots lost their excess."""
    room = make_room(forest.excess.size)
    highest = 0
    for v in needy:
        level = np.int64(forest.nodes[v]) // STEP
        need(room, v, level)
        highest = max(highest, level)
    for v in rootless:
        orphan(forest, room, v, 1)
        highest = max(highest, 1)
    mend(forest, room, highest, forest.excess.size)


def waiting_in(heads, following):
    """The nodes {level: nodes} of linked lists."""
    found = {}
    for level in np.flatnonzero(heads >= 0):
        v = int(heads[level])
        while v >= 0:
            found.setdefault(int(level), []).append(v)
            v = int(following[v])
    return found


@pytest.mark.parametrize("n_nodes", [1, 9])
def test_room_is_empty(n_nodes):
    room = room_of(n_nodes)
    assert waiting_in(room.needy, room.needy_next) == oracle.make_room(n_nodes) == {}
    assert waiting_in(room.orphan, room.orphan_next) == {}
    assert [len(part) for part in room] == [n_nodes + 3] * 2 + [n_nodes] * 5


def test_nodes_wait_in_lists_as_their_twins(rng):
    forest = filled(*problem((5, 6), 1, 0)).forest
    n_nodes = forest.excess.size
    nodes, lost = rng.permutation(n_nodes)[:20], rng.random(20) < 0.5
    levels = rng.integers(1, 5, 20)
    forest.nodes[:] = 0
    room = listed(forest, nodes, levels, lost)
    needy, orphans = oracle.make_room(n_nodes), oracle.make_room(n_nodes)
    known = np.zeros(n_nodes, int)
    for v, level, is_lost in zip(nodes.tolist(), levels.tolist(), lost, strict=True):
        if is_lost:
            oracle.orphan(known, orphans, v, level)
        else:
            oracle.need(needy, v, level)
    assert waiting_in(room.needy, room.needy_next) == needy
    assert waiting_in(room.orphan, room.orphan_next) == orphans
    np.testing.assert_array_equal(forest.nodes // STEP, known)
    assert (forest.nodes[nodes[lost]] % STEP == LOST).all()


@pytest.mark.parametrize("top", [1, 2, 4, 10**6])
@pytest.mark.parametrize("shape", [*SHAPES, (12, 13)])
def test_growing_is_a_breadth_first_search(shape, top):
    costs, weights = problem(shape, len(shape), 1)
    forest = filled(costs, weights).forest
    roots = np.flatnonzero(forest.excess > 0)
    forest.nodes[:] = LOST
    forest.nodes[roots] = STEP + ROOT
    levels = forest.nodes // STEP
    highest, room = grown(forest, roots, 1, top)
    given = (forest.cap, forest.excess, forest.offsets, levels)
    expected, needy = oracle.grow(*given, roots.tolist(), 1, top)
    found, code = np.divmod(forest.nodes, STEP)
    np.testing.assert_array_equal(found, expected)
    (child,) = np.nonzero(code < ROOT)
    parent = child + forest.offsets[code[child]]
    np.testing.assert_array_equal(found[parent], found[child] - 1)
    back = len(forest.offsets) - 1 - code[child]
    assert (forest.cap[back, parent] > 0).all()
    waiting = waiting_in(room.needy, room.needy_next)
    assert {level: set(nodes) for level, nodes in waiting.items()} == needy
    assert highest == max(needy, default=0)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (12, 13)])
@pytest.mark.parametrize("seed", range(4))
def test_a_repaired_forest_holds_all_that_the_source_reaches(shape, seed, dtype):
    costs, weights = problem(shape, len(shape), seed, dtype)
    costs[..., 0] += 6  # more excess than deficits, so that the forest is large
    network = network_of(costs, weights)
    network.solve(excess_of(costs), keep=True)
    forest, rng = network.forest, np.random.default_rng(seed)
    inside = np.flatnonzero(forest.nodes >= STEP)
    change = np.where(rng.random(inside.size) < 0.3, rng.integers(-25, 0, inside.size), 0)
    roots = inside[forest.nodes[inside] == STEP + ROOT]
    forest.excess[inside] += change.astype(dtype)
    rootless = roots[forest.excess[roots] <= 0]
    needy = np.setdiff1d(inside[forest.excess[inside] < 0], rootless)
    before = forest.cap.copy(), forest.excess.copy()
    mended(forest, needy, rootless)
    np.testing.assert_array_equal(forest.nodes >= STEP, oracle.mend(*before, forest.offsets))
    assert (forest.cap >= 0).all()
    assert forest.excess.sum() == pytest.approx(before[1].sum())
