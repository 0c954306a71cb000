"""On one GPU: what is packed on other streams is what was gathered, and what a step and a comparison hold of memory."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "learner"))

from learner_scenarios import start_trainer, train
from tiny_learner import free_port, write_tiny_model

from rollout.fingerprint import fingerprint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SPIN_CYCLES = 200_000_000
"""About a tenth of a second: as long as a gather over a busy network."""
BUFFER_BYTES = 60_000
"""A small part of the tiny model, so that vLLM's producer changes streams many times."""
LARGEST = (152_064, 3584)
"""The embedding of Qwen2.5-VL-7B, 1.02 GiB in bfloat16."""


class Receivers:
    """Keeps what is broadcast, read on the stream that broadcasts, as NCCL reads it."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        self.sent.append(tensor.clone())


def test_tensors_packed_on_other_streams_than_their_slow_gather_arrive_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed_tensor = pytest.importorskip("vllm.distributed.weight_transfer.packed_tensor")
    from learner.weight_sender import PolicyWeights

    write_tiny_model(tmp_path)
    trainer = start_trainer(0, 1, free_port(), tmp_path, device="cuda", dtype="bfloat16")
    source = PolicyWeights(trainer.backend.full_shapes(), trainer.backend.full_tensors, torch.bfloat16)
    expected = [(name, tensor.clone()) for name, tensor in source]
    torch.cuda.synchronize()
    gather, num_gathers = dist.all_gather_into_tensor, 0

    def slow_gather(*arguments: Any, **options: Any) -> Any:
        nonlocal num_gathers
        num_gathers += 1
        torch.cuda._sleep(SPIN_CYCLES)
        return gather(*arguments, **options)

    monkeypatch.setattr(dist, "all_gather_into_tensor", slow_gather)
    receivers = Receivers()
    packed_tensor.packed_nccl_broadcast_producer(
        iterator=iter(source), group=receivers, src=0, post_iter_func=lambda item: item[1],
        buffer_size_bytes=BUFFER_BYTES,
    )  # fmt: skip
    torch.cuda.synchronize()
    trainer.close()

    sent, start, wrong = torch.cat([part.flatten().view(torch.uint8) for part in receivers.sent]), 0, []
    for name, tensor in expected:
        piece = sent[start : start + tensor.nbytes].clone().view(torch.bfloat16).view(tensor.shape)
        start += tensor.nbytes
        if not torch.equal(piece, tensor):
            wrong.append(name)
    print(f"found: {len(expected)} tensors, {len(receivers.sent)} buffers, {num_gathers} gathers, {len(wrong)} wrong")
    assert num_gathers > 0
    assert len(receivers.sent) > 4
    assert start == len(sent)
    assert wrong == []


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_memory_that_a_step_took_at_its_peak_is_given_back(family: str, tmp_path: Path) -> None:
    write_tiny_model(tmp_path, family)
    trainer = start_trainer(0, 1, 0, tmp_path, device="cuda", dtype="bfloat16")
    torch.cuda.reset_peak_memory_stats()
    train(trainer, 0, 1, 0, 2, family)
    peak, held, reserved = (
        torch.cuda.max_memory_allocated(),
        torch.cuda.memory_allocated(),
        torch.cuda.memory_reserved(),
    )
    trainer.release_cache()
    left = torch.cuda.memory_reserved()
    trainer.close()

    print(
        f"found: MiB at a step's peak {peak / 2**20:.1f}, after it allocated {held / 2**20:.1f}, "
        f"reserved {reserved / 2**20:.1f}, reserved once given back {left / 2**20:.1f}"
    )
    assert held < peak
    # Segments of 2 and 20 MiB of which something is held stay whole.
    assert left <= held + 64 * 2**20


def test_a_fingerprint_of_the_largest_tensor_takes_little_beside_it_and_is_the_one_on_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn((999, 1001), generator=generator).to(torch.bfloat16)
    assert fingerprint(small.cuda()) == fingerprint(small)
    tensor = torch.zeros(LARGEST, dtype=torch.bfloat16, device="cuda")
    tensor[-1, -1] = 1.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()

    size, total, _ = fingerprint(tensor)

    beside = torch.cuda.max_memory_allocated() - before
    print(f"found: {beside / 2**20:.1f} MiB beside {tensor.nbytes / 2**20:.0f}")
    assert (size, total) == (tensor.numel(), 0x3F800000)
    assert beside < 64 * 2**20
