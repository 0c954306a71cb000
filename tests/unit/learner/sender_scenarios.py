"""What one learner rank does in the tests of transfers that break; importable, so that a fresh process can find it."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

NUM_TENSORS = 6
PATIENCE_S = 60.0
"""After which a rank that is left in a gather fails."""
CALLS = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")


class Engines:
    """A client that fails in one of its calls."""

    weight_version = "0"

    def __init__(self, fails_in: str | None) -> None:
        for name in CALLS:
            setattr(self, name, lambda *_, name=name: self._called(name, fails_in))

    def _called(self, name: str, fails_in: str | None) -> None:
        if name == fails_in:
            raise RuntimeError(f"engine 3 died in {name}")


class Group:
    """A group in which everyone has what is broadcast at once: gloo's and NCCL's."""

    def __init__(self) -> None:
        self.group = SimpleNamespace(store=dist.HashStore())

    def broadcast(self, tensor: torch.Tensor, src: int) -> Any:
        return SimpleNamespace(wait=lambda: None)

    def shutdown(self) -> None: ...

    def destroy(self) -> None: ...


def without_gpus() -> list[Any]:
    """Everything of the senders that needs a GPU or an engine at the other end, away."""
    stream = SimpleNamespace(synchronize=lambda: None)

    def shared(iterator: Iterator[tuple[str, torch.Tensor]], **_: Any) -> Iterator[Any]:
        handle = (torch.Tensor, torch.Size([8]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 0, b"x")
        for name, tensor in iterator:
            yield SimpleNamespace(
                names=[name], shapes=[list(tensor.shape)], dtype_names=["float32"], tensor_sizes=[8],
                ipc_handle={f"GPU-{dist.get_rank()}": handle},
            )  # fmt: skip

    transfer = "vllm.distributed.weight_transfer"
    return [
        patch("torch.cuda.stream", lambda _: nullcontext()),
        patch("torch.cuda.synchronize", lambda: None),
        patch("torch.cuda.ipc_collect", lambda: None),
        patch("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid=f"GPU-{dist.get_rank()}")),
        patch("torch.accelerator.current_device_index", lambda: 0),
        patch(f"{transfer}.packed_tensor._get_streams", lambda _, count: (stream,) * count),
        patch(f"{transfer}.nccl_engine.open_trainer_endpoint", lambda _: Group()),
        patch(f"{transfer}.ipc_engine.packed_ipc_producer", shared),
        patch("learner.broadcast.stateless_init_torch_distributed_process_group", lambda *_, **__: Group()),
        patch("learner.broadcast.bound_socket", lambda *_: None),
    ]


def break_in_every_call(rank: int, num_ranks: int, port: int) -> dict[tuple[str, str | None], str]:
    """What this rank raises, by backend and by the call in which an engine dies; between two, ranks are in step."""
    from learner.weight_sender import WeightSender

    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=PATIENCE_S)
    )
    passes = 0

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal passes
        passes += 1
        for i in range(NUM_TENSORS):
            mine = torch.tensor([float(passes), float(i)])
            every = [torch.empty(2) for _ in range(num_ranks)]
            dist.all_gather(every, mine)
            assert all(torch.equal(other, mine) for other in every), "the ranks are in different passes"
            yield f"w{i}", mine

    found: dict[tuple[str, str | None], str] = {}
    for change in without_gpus():
        change.start()
    for backend in ("gloo", "nccl", "ipc"):
        for fails_in in (*CALLS, None):
            try:
                sender = WeightSender(
                    {f"w{i}": (2,) for i in range(NUM_TENSORS)}, gathered, client=Engines(fails_in), backend=backend,
                    dtype="float32", rank=rank, num_receivers=1, address="127.0.0.1", port=1, bucket_bytes=8,
                    timeout_s=PATIENCE_S,
                )  # fmt: skip
                if fails_in != CALLS[0]:  # else no rank is asked to send
                    sender.send()
                found[backend, fails_in] = "nothing"
            except Exception as error:
                found[backend, fails_in] = str(error)
    dist.destroy_process_group()
    return found
