"""An engine that dies in any call of a transfer: rank 0 raises, and no other rank is left in a gather."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import ipc_engine, nccl_engine, packed_tensor

from conf.daemon_call import begin
from learner import broadcast
from learner.weight_sender import WeightSender

NUM_TENSORS = 6
PATIENCE_S = 20.0
"""After which a rank that is left in a gather fails."""
CALLS = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
HANDLE = (torch.Tensor, torch.Size([8]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 0, b"x")


class Engines:
    """A client that fails in one of its calls."""

    def __init__(self, fails_in: str | None) -> None:
        self.fails_in = fails_in

    def __getattr__(self, name: str) -> Callable[..., None]:
        def called(*_: Any) -> None:
            if name == self.fails_in:
                raise RuntimeError(f"engine 3 died in {name}")

        return called


class Group:
    """A group in which everyone has what is broadcast at once: gloo's and NCCL's."""

    def __init__(self) -> None:
        self.group = SimpleNamespace(store=dist.HashStore())

    def broadcast(self, tensor: torch.Tensor, src: int) -> Any:
        return SimpleNamespace(wait=lambda: None)

    def shutdown(self) -> None: ...

    def destroy(self) -> None: ...


class Ranks:
    """Two learner ranks that gather over gloo, each in a thread."""

    def __init__(self) -> None:
        store, limit = dist.HashStore(), timedelta(seconds=PATIENCE_S)
        making = [begin(lambda rank=rank: dist.ProcessGroupGloo(store, rank, 2, limit)) for rank in range(2)]
        self._groups = [group.result() for group in making]
        self._own = threading.local()

    def run(self, call: Callable[[int], None]) -> list[str]:
        """What each rank raises."""

        def told(rank: int) -> str:
            self._own.rank = rank
            try:
                call(rank)
            except Exception as error:
                return str(error)
            return "nothing"

        return [answer.result() for answer in [begin(told, rank) for rank in range(2)]]

    def gathered(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """A pass over all tensors; both ranks must be in the same one."""
        for i in range(len(names)):
            mine = torch.tensor([float(i), 1.0])
            every = [torch.empty(2), torch.empty(2)]
            self._groups[self._own.rank].allgather([every], [mine]).wait()
            assert torch.equal(*every), "the ranks are at different tensors"
            yield f"w{i}", mine

    def all_gather_object(self, gathered: list[Any], own: Any) -> None:
        self.barrier()
        gathered[:] = [own, own]

    def barrier(self) -> None:
        self._groups[self._own.rank].barrier().wait()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Ranks of a learner whose GPUs, and whose engines at the other end, need not be there."""
    made = Ranks()
    stream = SimpleNamespace(synchronize=lambda: None)

    def shared(iterator: Iterator[tuple[str, torch.Tensor]], **_: Any) -> Iterator[Any]:
        for name, tensor in iterator:
            yield SimpleNamespace(
                names=[name], shapes=[list(tensor.shape)], dtype_names=["float32"], tensor_sizes=[8],
                ipc_handle={"GPU-1": HANDLE},
            )  # fmt: skip

    for target, name, stand_in in (
        (torch.cuda, "stream", lambda _: nullcontext()),
        (torch.cuda, "synchronize", lambda: None),
        (torch.cuda, "ipc_collect", lambda: None),
        (torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="GPU-1")),
        (torch.accelerator, "current_device_index", lambda: 0),
        (dist, "is_initialized", lambda: True),
        (dist, "get_world_size", lambda: 2),
        (dist, "all_gather_object", made.all_gather_object),
        (dist, "barrier", made.barrier),
        (packed_tensor, "_get_streams", lambda _, count: (stream,) * count),
        (nccl_engine, "open_trainer_endpoint", lambda _: Group()),
        (ipc_engine, "packed_ipc_producer", shared),
        (broadcast, "stateless_init_torch_distributed_process_group", lambda *_, **__: Group()),
        (broadcast, "bound_socket", lambda *_: None),
    ):
        monkeypatch.setattr(target, name, stand_in)
    return made


@pytest.mark.parametrize("backend", ["gloo", "nccl", "ipc"])
def test_ranks_keep_in_step_whichever_call_to_an_engine_fails(backend: str, ranks: Ranks) -> None:
    for fails_in in (*CALLS, None):
        senders: dict[int, WeightSender] = {}

        def connect(rank: int, fails_in: str | None = fails_in, senders: dict[int, WeightSender] = senders) -> None:
            senders[rank] = WeightSender(
                {f"w{i}": (2,) for i in range(NUM_TENSORS)}, ranks.gathered, client=Engines(fails_in),
                backend=backend, dtype="float32", rank=rank, num_receivers=1, address="127.0.0.1", port=1,
                bucket_bytes=8, timeout_s=PATIENCE_S,
            )  # fmt: skip

        def send(rank: int, senders: dict[int, WeightSender] = senders) -> None:
            senders[rank].send()

        first, other = ranks.run(connect)
        if fails_in != CALLS[0]:
            assert (first, other) == ("nothing", "nothing")
            first, other = ranks.run(send)
        assert other == "nothing"
        assert first == ("nothing" if fails_in is None else f"engine 3 died in {fails_in}")
