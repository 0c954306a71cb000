"""The embedding table: one tensor out of a checkpoint, in every stored type, whole or sharded."""

import json
from pathlib import Path

import numpy as np
import pytest

from rewards.core.base import RewardError
from rewards.functions.embedding_table import EmbeddingTable

ROWS = np.random.default_rng(5).standard_normal((10, 4)).astype(np.float32)
NAME = "model.language_model.embed_tokens.weight"


def write(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """Write the safetensors format: header length, JSON header, bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def bfloat16_bits(rows: np.ndarray) -> np.ndarray:
    return (rows.view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize(
    ("dtype", "stored", "tolerance"),
    [("F32", ROWS, 0.0), ("F16", ROWS.astype(np.float16), 2e-3), ("BF16", bfloat16_bits(ROWS), 4e-2)],
)
def test_rows_come_back_as_float32(tmp_path: Path, dtype: str, stored: np.ndarray, tolerance: float) -> None:
    other = ("F32", np.zeros((3, 3), np.float32))
    write(tmp_path / "model.safetensors", {"lm_head.weight": other, NAME: (dtype, stored)})
    table = EmbeddingTable.from_checkpoint(tmp_path)
    rows = table.rows(np.array([7, 0]))
    assert (table.shape, rows.dtype) == ((10, 4), np.float32)
    np.testing.assert_allclose(rows, ROWS[[7, 0]], atol=tolerance)


def test_it_reads_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({NAME: ROWS, "norm.weight": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(EmbeddingTable.from_checkpoint(tmp_path).rows(np.arange(10)), ROWS)


def test_sharded_checkpoint_is_read_through_its_index(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"x": ("F32", np.zeros((2, 2), np.float32))})
    write(tmp_path / "b.safetensors", {"y": ("F32", np.zeros((2, 2), np.float32)), NAME: ("F32", ROWS)})
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", NAME: "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(EmbeddingTable.from_checkpoint(tmp_path).rows(np.arange(10)), ROWS)


def test_table_can_be_named_and_must_be_unambiguous(tmp_path: Path) -> None:
    write(
        tmp_path / "model.safetensors",
        {"a.embed_tokens.weight": ("F32", ROWS), "b.embed_tokens.weight": ("F32", ROWS * 2)},
    )
    with pytest.raises(RewardError, match="2 tensors look like"):
        EmbeddingTable.from_checkpoint(tmp_path)
    named = EmbeddingTable.from_checkpoint(tmp_path, "b.embed_tokens.weight")
    np.testing.assert_array_equal(named.rows(np.array([1])), ROWS[[1]] * 2)
    with pytest.raises(RewardError, match="'c' is not in"):
        EmbeddingTable.from_checkpoint(tmp_path, "c")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="neither"):
        EmbeddingTable.from_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(RewardError, match="no safetensors file"):
        EmbeddingTable.from_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"{'cut': " + bytes(8))
    with pytest.raises(RewardError, match=r"model\.safetensors is no safetensors file, or one that was cut"):
        EmbeddingTable.from_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(RewardError, match=r"index\.json is no index of weights"):
        EmbeddingTable.from_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    write(tmp_path / "model.safetensors", {NAME: ("I64", np.zeros((2, 2), np.int64))})
    with pytest.raises(RewardError, match="I64"):
        EmbeddingTable.from_checkpoint(tmp_path)
    with pytest.raises(RewardError, match="float64"):
        EmbeddingTable(np.zeros((2, 2)))
