"""Training near boundaries: the loss falls, seeds decide, and diverged networks do nothing."""

import numpy as np
import pytest
import torch

from hybridseg import BoundaryRefiner
from hybridseg.deep.boundary.band import Surroundings
from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.boundary.patches import draw_patches
from hybridseg.deep.boundary.refiner import _as_augmentation
from hybridseg.deep.boundary.training import Settings, augmented, train
from hybridseg.unary import Augmentation
from tests.deep.boundary.shifted import several, shifted

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = {"band": 4, "hidden": 8, "depth": 4, "n_patches": 24, "patch_size": 16, "device": "cpu"}


def settings_of(**changes):
    model = BoundaryRefiner(**(SMALL | changes))
    given = {name: getattr(model, name) for name in Settings.__dataclass_fields__}
    return Settings(**given | {"augment": _as_augmentation(model.augment)})


def trained(seed=0, **changes):
    scene, truth = shifted(1, n_labels=3)
    torch.manual_seed(0)
    network = BoundaryNetwork(3, 3, hidden=8, depth=4, reach=6)
    random = np.random.default_rng(seed)
    around = Surroundings.of(scene, 4.0)
    patches = draw_patches(around, truth, 24, side=16, reach=network.reach, random=random)
    return network, train(network, patches, settings_of(**changes), random)


@pytest.mark.parametrize("name", ["upright", "dihedral", None])
def test_the_loss_falls(name):
    _, steps = trained(augment=name, max_epochs=16, batch_size=8, lr=0.01)
    losses = [step.loss for step in steps]
    assert [step.number for step in steps] == list(range(48))
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:3])


def test_augmentation_changes_colors_as_it_says():
    scene, truth = shifted(1, n_labels=3)
    random = np.random.default_rng(0)
    (patch,) = draw_patches(Surroundings.of(scene, 4.0), truth, 1, side=16, reach=3, random=random)
    moments = np.full(3, 100, np.float32), np.full(3, 50, np.float32)
    plain = Augmentation("none", contrast=0, brightness=0, tint=0)
    same = augmented(patch, plain, moments, random)
    np.testing.assert_allclose(same.colors, patch.colors, atol=1e-3)
    found = [
        augmented(patch, Augmentation("none", brightness=0.3), moments, random) for _ in range(20)
    ]
    middle = [each.colors.mean() - patch.colors.mean() for each in found]
    assert max(middle) > 5
    assert min(middle) < -5
    spread = [each.colors[0].std() / patch.colors[0].std() for each in found]
    assert 0.7 < min(spread) < 0.95 < 1.05 < max(spread) < 1.3
    for each in found:
        np.testing.assert_array_equal(each.truth, patch.truth)
        np.testing.assert_array_equal(each.log_proba, patch.log_proba)


@pytest.mark.parametrize(("symmetry", "n_views"), [("none", 1), ("upright", 2), ("dihedral", 8)])
def test_symmetries_give_all_views(symmetry, n_views):
    scene, truth = shifted(1, n_labels=3)
    random = np.random.default_rng(0)
    (patch,) = draw_patches(Surroundings.of(scene, 4.0), truth, 1, side=16, reach=3, random=random)
    moments = np.zeros(3, np.float32), np.ones(3, np.float32)
    augment = Augmentation(symmetry, contrast=0, brightness=0, tint=0)
    views = {augmented(patch, augment, moments, random).truth.tobytes() for _ in range(100)}
    assert len(views) == n_views


def test_the_same_seed_gives_the_same_network():
    (first, steps), (second, again), (third, _) = trained(), trained(), trained(seed=1)
    assert [step.loss for step in steps] == [step.loss for step in again]
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.last.weight, third.last.weight)


def test_the_global_generator_does_not_change():
    X, y = several(3)
    before = torch.get_rng_state()
    BoundaryRefiner(**SMALL, max_epochs=1, gate=None, random_state=0).fit(X, y)
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_that_diverged_corrects_nothing():
    X, y = several(2)
    model = BoundaryRefiner(**SMALL, lr=1e30, max_epochs=6, gate=None, random_state=0)
    with pytest.warns(UserWarning, match="the network diverged, so it corrects nothing"):
        model.fit(X, y)
    for scene, found in zip(X, model.predict_proba(X), strict=True):
        np.testing.assert_allclose(found, scene.proba, atol=1e-6)


def test_each_fold_learns_from_its_own_patches():
    X, y = several(6)
    model = BoundaryRefiner(**SMALL, batch_size=4, max_epochs=2, gate=3, random_state=0).fit(X, y)
    n_steps = [len(losses) for losses in model.learning_.losses]
    assert n_steps[:3] == [8, 8, 8]  # 16 of 24 patches, twice
    assert n_steps[3:] == ([12] if model.strength_ > 0 else [])
    assert model.learning_.gate.n_images == 6
