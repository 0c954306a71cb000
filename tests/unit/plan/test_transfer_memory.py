"""What a publication over NCCL holds at its fullest: vLLM's own producer and consumer, counted on the meta device."""

import gc
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import packed_tensor

from learner.backends import fsdp
from learner.backends.fsdp import GatheredBlock
from learner.broadcast import NCCL_BUFFERS
from learner.weight_sender import PolicyWeights
from orchestration.models.shapes import ModelShape, Tensor, read_shape
from orchestration.plan.engine_memory import receiver_items
from orchestration.plan.learner_memory import learner_parts
from tests.unit.plan.published import PUBLISHED
from tests.unit.plan.runs import gpu_config
from tests.unit.rollout.held_bytes import HeldBytes

GIB = 2**30
BUCKET_BYTES = 2**30
META = torch.device("meta")
MERGED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}
CASES = [("qwen2_5_vl_7b", 4, 1), ("qwen2_5_vl_72b", 32, 4)]


class Sharded:
    """A parameter of which every rank has some rows."""

    def __init__(self, shape: tuple[int, ...], num_ranks: int) -> None:
        self.shape = torch.Size(shape)
        self.local = torch.empty((-(-shape[0] // num_ranks), *shape[1:]), device=META)

    def to_local(self) -> torch.Tensor:
        return self.local


@pytest.fixture(autouse=True)
def _one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(packed_tensor, "_get_streams", lambda _, count: (stream,) * count)
    monkeypatch.setattr(fsdp, "DTensor", Sharded)


def in_order(shape: ModelShape) -> list[list[Tensor]]:
    """What is gathered together, in the order of the learner."""
    tensors = list(shape.tensors)
    blocks: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.block is not None:
            blocks.setdefault(tensor.block, []).append(tensor)
    return [*blocks.values(), *([tensor] for tensor in tensors if tensor.block is None)]


def sent(shape: ModelShape, num_ranks: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that rank 0 holds at its fullest, beside its parameters."""
    world = SimpleNamespace(get_world_size=lambda: num_ranks, all_gather_into_tensor=lambda whole, own: None)
    monkeypatch.setattr(fsdp, "dist", world)
    units = in_order(shape)
    parameters: Any = {t.name: Sharded(tuple(t.shape), num_ranks) for unit in units for t in unit}

    def gathered(_: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for unit in units:
            block = GatheredBlock({t.name: parameters[t.name] for t in unit}, device=META, dtype=torch.bfloat16)
            for tensor in unit:
                yield tensor.name, block.tensor(tensor.name)

    source = PolicyWeights({name: own.shape for name, own in parameters.items()}, gathered, torch.bfloat16)
    gc.collect()
    with HeldBytes().counting(*(own.local for own in parameters.values())) as memory:
        packed_tensor.packed_nccl_broadcast_producer(
            iterator=iter(source), group=SimpleNamespace(broadcast=lambda tensor, src: None), src=0,
            post_iter_func=lambda item: item[1], buffer_size_bytes=BUCKET_BYTES, num_buffers=NCCL_BUFFERS,
        )  # fmt: skip
    return memory.peak


def received(shape: ModelShape, workers: int) -> int:
    """Bytes that a worker holds at its fullest; a layer waits for all its tensors, and is then made anew."""
    tensors = [tensor for unit in in_order(shape) for tensor in unit]

    def layer_of(name: str) -> str:
        layer = name.rpartition(".")[0]
        last = layer.rpartition(".")[2]
        # The tower's gate and up projections, with their biases, are merged as well.
        return layer.removesuffix(last) + MERGED.get(last, last)

    members: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        members.setdefault(layer_of(tensor.name), []).append(tensor)
    waiting: dict[str, list[torch.Tensor]] = {}

    def load(arrived: list[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in arrived:
            layer = layer_of(name)
            waiting.setdefault(layer, []).append(tensor)
            if len(waiting[layer]) == len(members[layer]):
                torch.empty(sum(t.numel for t in members[layer]) // workers, device=META, dtype=torch.bfloat16)
                del waiting[layer]

    gc.collect()
    with HeldBytes().counting() as memory:
        packed_tensor.packed_nccl_broadcast_consumer(
            iterator=((t.name, (list(t.shape), torch.bfloat16)) for t in tensors), device=META, src=0,
            group=SimpleNamespace(broadcast=lambda tensor, src: None), post_unpack_func=load,
            buffer_size_bytes=BUCKET_BYTES, num_buffers=1,
        )  # fmt: skip
    return memory.peak


@pytest.mark.filterwarnings("ignore:Tensor '")
@pytest.mark.parametrize(("model", "num_ranks", "workers"), CASES)
def test_the_plan_counts_what_a_publication_holds_on_both_sides(
    model: str, num_ranks: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = read_shape(PUBLISHED[model])
    config = gpu_config(
        tmp_path, f"learner.num_ranks={num_ranks}", f"rollout.engine.tensor_parallel_size={workers}",
        f"rollout.weight_channel.bucket_bytes={BUCKET_BYTES}",
    )  # fmt: skip
    phase = learner_parts(config, shape).phases["weights to engines"]
    planned_sent = sum(item.bytes for item in phase if not item.name.startswith("gradients"))
    planned_received = sum(item.bytes for item in receiver_items(config, shape))

    counted_sent, counted_received = sent(shape, num_ranks, monkeypatch), received(shape, workers)

    print(
        f"{model}: sent {counted_sent / GIB:.2f} of {planned_sent / GIB:.2f} GiB planned, "
        f"received {counted_received / GIB:.2f} of {planned_received / GIB:.2f}"
    )
    assert 0.6 * planned_sent < counted_sent <= planned_sent
    assert 0.6 * planned_received < counted_received <= planned_received
