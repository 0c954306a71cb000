"""Fingerprints of tensors: exact, in little memory, and another one for whatever is another tensor."""

import gc
from collections.abc import Iterator

import pytest
import torch

from orchestration.workers.weight_sync import join_fingerprints
from rollout import fingerprint as module
from rollout.fingerprint import fingerprint, join_shards, shard_fingerprint
from tests.unit.rollout.held_bytes import HeldBytes

ROWS = (37_984, 2_048)
"""A quarter of the embedding of Qwen2.5-VL-3B; whole tensors in float64 would take 0.58 GiB each."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand() -> None:
    # 1.0 is 0x3F800000 and 2.0 is 0x40000000.
    assert fingerprint(torch.tensor([[2.0, 0.0], [1.0, 0.0]])) == (4, 0x40000000 + 0x3F800000, 2 * 0x3F800000)


@pytest.mark.parametrize("num_slice_elements", [1, 7, 48, 10**6])
def test_the_slices_change_nothing(num_slice_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = drawn(9, 4, 12)
    whole = fingerprint(tensor)

    monkeypatch.setattr(module, "SLICE_ELEMENTS", num_slice_elements)

    assert fingerprint(tensor) == whole
    assert fingerprint(tensor.transpose(0, 2).contiguous().transpose(0, 2)) == whole


def test_threads_change_nothing() -> None:
    tensor = drawn(700, 900)
    one = fingerprint(tensor)
    torch.set_num_threads(2)

    assert fingerprint(tensor) == one


@pytest.mark.parametrize("shape", [(64, 64), (3, 32, 32), (8, 4, 4)])
def test_a_transposed_tensor_of_equal_size_is_another_one(shape: tuple[int, ...]) -> None:
    tensor = drawn(*shape)

    assert fingerprint(tensor.transpose(-1, -2)) != fingerprint(tensor)
    assert fingerprint(tensor.transpose(-1, -2).contiguous())[:2] == fingerprint(tensor)[:2]


def test_one_bit_in_one_element_is_seen() -> None:
    tensor = drawn(300, 1000)
    changed = tensor.clone()
    changed[299, 999] = torch.nextafter(changed[299, 999], torch.tensor(9.0))

    assert fingerprint(changed) != fingerprint(tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_tensor_has_the_fingerprint_of_its_float32_copy(dtype: torch.dtype) -> None:
    tensor = drawn(30, 50).to(dtype)

    assert fingerprint(tensor) == fingerprint(tensor.float())


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0)])
def test_scalars_vectors_and_empty_tensors_have_one(shape: tuple[int, ...]) -> None:
    assert fingerprint(torch.ones(shape))[0] == torch.Size(shape).numel()


def test_tensors_that_lie_behind_one_another_join_to_the_fingerprint_of_the_whole() -> None:
    parts = [drawn(rows, 6, seed=rows) for rows in (4, 1, 9)]

    assert join_fingerprints([fingerprint(part) for part in parts]) == fingerprint(torch.cat(parts))


def test_a_large_tensor_needs_a_few_megabytes_beside_it() -> None:
    # One number stands for all of them, so that the tensor itself costs nothing; every slice of it is copied.
    tensor = torch.ones((), dtype=torch.bfloat16).expand(ROWS)
    gc.collect()
    with HeldBytes().counting(tensor) as memory:
        found = fingerprint(tensor)

    count = ROWS[0] * ROWS[1]
    assert found[:2] == (count, count * 0x3F800000)
    assert 2**20 < memory.peak < 64 * 2**20


def test_half_of_a_large_tensor_needs_no_more_whichever_way_it_is_cut() -> None:
    rows, columns = 8_000, 2_048
    tensor = torch.ones((), dtype=torch.bfloat16).expand(rows, columns)
    every_second = torch.where(torch.arange(columns) % 2 == 0, torch.arange(columns), -1)
    gc.collect()
    with HeldBytes().counting(tensor, every_second) as memory:
        found = shard_fingerprint(tensor, [torch.arange(rows), every_second], (rows, columns))

    assert join_shards([found])[:2] == (rows * columns // 2, rows * columns // 2 * 0x3F800000)
    assert 2**20 < memory.peak < 128 * 2**20
