"""Reading a checkpoint runs nothing that somebody put into it."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.filesystem import _StorageInfo

from learner.backends.deepspeed_checkpoint import RANKS_TAG, _own_classes
from learner.backends.plain_loading import FORCE, FORCE_NOT, PlainReader, weights_only


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint of one process: a tensor, and a number, which torch keeps as a pickle of its own."""
    state = {"weight": torch.arange(6.0), "step": 7}
    save(state, storage_writer=FileSystemWriter(tmp_path / "kept"), no_dist=True)
    return tmp_path / "kept"


def read(folder):
    state = {"weight": torch.zeros(6), "step": 0}
    with weights_only():
        load(state, storage_reader=PlainReader(folder), no_dist=True)
    return state


def test_a_sharded_checkpoint_is_read_as_it_was_written(folder):
    state = read(folder)

    assert state["weight"].tolist() == list(range(6))
    assert state["step"] == 7


def test_a_description_of_shards_that_calls_something_is_refused(folder, tmp_path):
    (folder / ".metadata").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))

    with pytest.raises(CheckpointException, match=r"it names posix\.mkdir"):
        read(folder)
    assert not (tmp_path / "sprung").exists()

    # The control: torch's own reader runs it.
    with pytest.raises(Exception, match="NoneType"):
        FileSystemReader(folder).read_metadata()
    assert (tmp_path / "sprung").is_dir()


def test_a_stored_value_that_calls_something_is_refused(folder, tmp_path):
    replace_step(folder, Trap(tmp_path / "sprung"))

    with pytest.raises(CheckpointException, match="Weights only load failed"):
        read(folder)
    assert not (tmp_path / "sprung").exists()

    # The control: without the guard the same file makes the folder.
    state = {"weight": torch.zeros(6), "step": 0}
    load(state, storage_reader=PlainReader(folder), no_dist=True)
    assert (tmp_path / "sprung").is_dir()


def replace_step(folder: Path, value: object) -> None:
    """Put another value where the number was, as whoever can write the files could."""
    metadata = PlainReader(folder).read_metadata()
    [index] = [index for index in metadata.storage_data if index.fqn == "step"]
    stream = io.BytesIO()
    torch.save(value, stream)
    (folder / "planted").write_bytes(stream.getvalue())
    metadata.storage_data[index] = _StorageInfo("planted", 0, len(stream.getvalue()))
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def test_within_the_block_every_load_is_of_weights_only_and_after_it_nothing_is_changed(tmp_path, monkeypatch):
    monkeypatch.setenv(FORCE_NOT, "1")
    allowed = torch.serialization.get_safe_globals()
    path = tmp_path / "file.pt"
    torch.save({"tensor": torch.ones(2), "trap": Trap(tmp_path / "sprung")}, path)

    with weights_only(), pytest.raises(pickle.UnpicklingError, match=r"posix\.mkdir"):
        torch.load(path, weights_only=False)

    assert not (tmp_path / "sprung").exists()
    assert (os.environ.get(FORCE), os.environ[FORCE_NOT]) == (None, "1")
    assert torch.serialization.get_safe_globals() == allowed


def test_what_deepspeed_keeps_beside_tensors_is_read_and_nothing_else(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    kept = {
        "loss_scaler": LossScaler(scale=2.0),
        "zero_stage": ZeroStageEnum.gradients,
        "slices": {"weight": fragment_address(numel=3, start=4)},
    }
    path = tmp_path / RANKS_TAG
    torch.save(kept, path)

    with weights_only(_own_classes()):
        found = torch.load(path, weights_only=False)

    assert (found["loss_scaler"].cur_scale, found["zero_stage"]) == (2.0, ZeroStageEnum.gradients)
    assert found["slices"]["weight"] == fragment_address(numel=3, start=4)
    torch.save({**kept, "trap": Trap(tmp_path / "sprung")}, path)
    with weights_only(_own_classes()), pytest.raises(pickle.UnpicklingError, match=r"posix\.mkdir"):
        torch.load(path, weights_only=False)
    assert not (tmp_path / "sprung").exists()
