"""Several processes that train one network."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hybridseg.deep.training.crops import EpochSampler
from hybridseg.deep.training.processes import Processes
from tests.deep.subjects import IMAGES, LABELS, quick, same, weights
from tests.deep.trainings_by_processes import SAME, found, plain

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def needs_accelerate():
    return pytest.importorskip("accelerate", reason="accelerate is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_torch_thread):
    """The results of two processes, and the directory of their files."""
    needs_accelerate()
    directory = tmp_path_factory.mktemp("processes")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    subprocess.run(
        [sys.executable, "-m", *launch, "tests.deep.trainings_by_processes", str(directory)],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    return directory, [torch.load(directory / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", SAME)
def test_two_processes_train_as_one(trained, name):
    first, second = (results[name] for results in trained[1])
    assert same(first["weights"], second["weights"])
    bound = 2e-2 if name == "half precision" else 1e-4
    for parts in (2, 1) if name == "plain" else (2,):
        changes = SAME[name] | {"accumulate": parts * SAME[name].get("accumulate", 1)}
        alone = found(plain(**changes).fit(IMAGES, LABELS))
        torch.testing.assert_close(first["weights"], alone["weights"], rtol=bound, atol=bound / 10)
        for row in ("train_loss", "valid_loss", "valid_mean_iou"):
            assert first[row] == second[row]
            np.testing.assert_allclose(first[row], alone[row], rtol=bound)


@pytest.mark.parametrize("name", ["own module", "no seed", "batch statistics"])
def test_all_processes_have_the_same_network(trained, name):
    first, second = (results[name] for results in trained[1])
    assert same(first["weights"], second["weights"])
    assert first["train_loss"] == second["train_loss"]


def test_one_process_goes_on_where_two_were_killed(trained):
    directory, results = trained
    assert [each["killed"] for each in results] == ["killed", "killed"]
    assert [path.name for path in (directory / "checkpoint").iterdir()] == ["training.pt"]
    resumed = found(plain(checkpoint=directory / "checkpoint").fit(IMAGES, LABELS))
    alone = found(plain().fit(IMAGES, LABELS))
    torch.testing.assert_close(resumed["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    assert len(resumed["train_loss"]) == 3


def test_batches_that_cannot_be_shared_are_refused(trained):
    for results in trained[1]:
        assert (
            "2 processes cannot divide batches of 5 crops equally; expected"
            in results["odd batches"]
        )


@pytest.fixture
def no_processes(monkeypatch):
    """accelerate in a process that was not launched by it."""
    accelerate = needs_accelerate()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerate.PartialState._reset_state()
    yield
    accelerate.PartialState._reset_state()


@pytest.mark.usefixtures("no_processes")
def test_a_process_that_is_alone_trains_as_ever():
    alone = quick(device="accelerate").fit(IMAGES, LABELS)
    assert same(weights(alone), weights(quick().fit(IMAGES, LABELS)))
    assert str(alone.net_.device) == "cpu"
    assert alone.predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.usefixtures("no_processes")
def test_processes_without_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setenv("WORLD_SIZE", "64")
    with pytest.raises(
        ValueError, match="64 processes were started, but .* ACCELERATE_USE_CPU=true"
    ):
        quick(device="accelerate").fit(IMAGES, LABELS)


def test_without_accelerate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"needs accelerate: pip install hybridseg\[accelerate\]"):
        quick(device="accelerate").fit(IMAGES, LABELS)


@pytest.mark.parametrize(("n_crops", "batch_size", "n_parts"), [(20, 6, 3), (4, 4, 2), (7, 2, 1)])
def test_processes_share_every_batch(n_crops, batch_size, n_parts):
    whole = EpochSampler(n_crops, batch_size, 0)
    parts = [EpochSampler(n_crops, batch_size, 0, (rank, n_parts)) for rank in range(n_parts)]
    for sampler in (whole, *parts):
        sampler.epoch = 2
    assert len({*whole} | {*range(2 * n_crops, 3 * n_crops)}) == n_crops
    assert len(whole) == len([*whole]) == n_crops // batch_size * batch_size
    shares = [np.reshape([*part], (n_crops // batch_size, -1)) for part in parts]
    np.testing.assert_array_equal(np.hstack(shares).ravel(), [*whole])
    assert [len(part) for part in parts] == [len([*part]) for part in parts]


def test_a_process_that_is_alone_agrees_with_itself():
    alone, values = Processes(torch.device("cpu")), torch.ones(2)
    assert alone.is_first
    assert alone.agreed(values) is values
    assert alone.gathered([1]) == [1]
    alone.average([values])
    alone.alike(torch.nn.Linear(1, 1))
    alone.check_shared(7)
    assert values.tolist() == [1, 1]
