"""NCCL without GPUs: calls that, as NCCL's own, return when every rank has made them, or never, unless aborted.

Sender and receivers are the product's, vLLM's packed producer and consumer run between them, each rank in a thread.
"""

import threading
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import HashStore
from vllm.distributed.weight_transfer import nccl_engine, packed_tensor

import rollout.weight_channel as channel
from conf.daemon_call import begin
from learner.weight_sender import WeightSender
from rollout.weight_channel import NcclEngine

PATIENCE_S = 20.0
"""Of the tests with everything; what NCCL would never end is found to hang after it."""
TENSORS = {f"w{i}": torch.full((50,), float(i)) for i in range(8)}
BUFFER_BYTES = 300
"""Two tensors of 50 float32 values overflow it: four broadcasts."""
DIES, HANGS = "dies", "hangs"


class Network:
    """What ranks meet over: groups that form, broadcasts that all must join."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live: set[Communicator] = set()
        self.changed = threading.Condition()
        self._groups: dict[int, tuple[dict[int, Communicator], HashStore]] = {}
        stream = SimpleNamespace(synchronize=lambda: None)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
        monkeypatch.setattr(packed_tensor, "_get_streams", lambda _, count: (stream,) * count)
        monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: self.join(info, 0))
        monkeypatch.setattr(
            nccl_engine, "worker_init_process_group", lambda info, own: self.join(info, info.rank_offset + own.rank)
        )
        for name in ("initialize_layerwise_reload", "finalize_layerwise_reload"):
            monkeypatch.setattr(f"vllm.model_executor.model_loader.reload.{name}", lambda *_: None)
            monkeypatch.setattr(channel, name, lambda *_: None)

    def join(self, info: Any, rank: int) -> "Communicator":
        """As ncclCommInitRank: returns when all ranks of a rendezvous have come."""
        with self.changed:
            ranks, store = self._groups.setdefault(info.master_port, ({}, HashStore()))
            own = Communicator(self, ranks, store)
            ranks[rank] = own
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: len(ranks) == info.world_size, PATIENCE_S), "nobody aborts an init"
            self.live.add(own)
        return own


class Communicator:
    """As vLLM's PyNcclCommunicator."""

    def __init__(self, network: Network, ranks: dict[int, "Communicator"], store: HashStore) -> None:
        self.group = SimpleNamespace(store=store)
        self._network = network
        self._ranks = ranks
        self.sent: list[torch.Tensor] = []
        self.num_calls = 0
        self.is_aborted = False

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        changed = self._network.changed
        with changed:
            self.num_calls += 1
            if self is self._ranks[src]:
                self.sent.append(tensor)
            changed.notify_all()
            mine = self.num_calls
            together = lambda: all(rank.num_calls >= mine for rank in self._ranks.values())  # noqa: E731
            assert changed.wait_for(lambda: together() or self.is_aborted, PATIENCE_S), "nobody aborted the broadcast"
            if not self.is_aborted:
                tensor.copy_(self._ranks[src].sent[mine - 1])

    def destroy(self) -> None:
        with self._network.changed:
            self.is_aborted = True
            self._network.live.discard(self)
            self._network.changed.notify_all()


class Engine:
    """One engine of one worker; `ends` says in which call, or at which tensor, it dies or hangs."""

    def __init__(self, index: int, timeout_s: float) -> None:
        self.index = index
        self.ends: dict[str, str] = {}
        self.loaded: dict[str, torch.Tensor] = {}
        self.failures: list[str] = []
        receiver = NcclEngine.__new__(NcclEngine)
        receiver.model = SimpleNamespace(load_weights=self._load)
        receiver.model_config = None
        receiver.device = torch.device("cpu")
        receiver.parallel_config, receiver.vllm_config = SimpleNamespace(rank=0), SimpleNamespace(lora_config=None)
        receiver.model_update_group = None
        receiver._timeout_s = timeout_s
        self.receiver = receiver

    def call(self, method: str, *arguments: Any) -> None:
        self._reach(method)
        try:
            if method == "init":
                self.receiver.init_transfer_engine(self.receiver.parse_init_info(arguments[0]))
            elif method == "start":
                self.receiver.start_weight_update()
            elif method == "update":
                self.receiver.receive_weights(self.receiver.parse_update_info(arguments[0]))
            else:
                self.receiver.finish_weight_update()
        except Exception as error:
            self.failures.append(f"{method}: {error}")
            raise

    def _load(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in tensors:
            self._reach(name)
            self.loaded[name] = tensor.clone()

    def _reach(self, where: str) -> None:
        how = self.ends.get(where)
        if how == HANGS:
            threading.Event().wait(PATIENCE_S)
        if how is not None:
            raise RuntimeError(f"engine {self.index} died")


class Client:
    """As EngineClient over Ray: raises what the first engine raises, and does not wait for the others then."""

    def __init__(self, engines: list[Engine]) -> None:
        self.engines = engines
        self.calls: list[Future[None]] = []

    def _each(self, method: str, arguments: list[Any]) -> None:
        calls = [
            begin(engine.call, method, *([argument] if argument else []))
            for engine, argument in zip(self.engines, arguments, strict=True)
        ]
        self.calls += [
            call for engine, call in zip(self.engines, calls, strict=True) if HANGS not in engine.ends.values()
        ]
        done, _ = wait(calls, return_when=FIRST_EXCEPTION)
        for call in done:
            call.result()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        first = init_info["rank_offset"]
        self._each("init", [{**init_info, "rank_offset": first + i} for i in range(len(self.engines))])

    def start_weight_update(self) -> None:
        self._each("start", [None] * len(self.engines))

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._each("update", [update_info] * len(self.engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._each("finish", [None] * len(self.engines))


class Learner:
    """Two ranks that gather together; rank 0 sends to the engines."""

    def __init__(self) -> None:
        self._gather = threading.Barrier(2)
        self._num_connections = 0
        self.senders: dict[int, WeightSender] = {}

    def publish(
        self, engines: list[Engine], timeout_s: float = PATIENCE_S
    ) -> tuple[BaseException | None, BaseException | None]:
        """Connect anew and, if that succeeds, send; gives what each rank raised. Nobody is left anywhere."""
        self.close()
        self._timeout_s = timeout_s
        self._num_connections += 1
        client = Client(engines)
        raised = self._on_ranks(self._connect, client)
        if raised == (None, None):
            raised = self._on_ranks(lambda rank, _: self.senders[rank].send(), client)
        return raised

    def close(self) -> None:
        for sender in self.senders.values():
            sender.close()
        self.senders = {}

    def _on_ranks(self, call: Any, client: Client) -> tuple[BaseException | None, BaseException | None]:
        ranks = [begin(call, rank, client) for rank in range(2)]
        assert not wait(ranks, PATIENCE_S).not_done, "a learner rank is left in a gather"
        assert not wait(client.calls, PATIENCE_S).not_done, "an engine that lives is left in a call"
        return ranks[0].exception(), ranks[1].exception()

    def _connect(self, rank: int, client: Client) -> None:
        self.senders[rank] = WeightSender(
            {name: tensor.shape for name, tensor in TENSORS.items()}, self._gathered, client=client, backend="nccl",
            dtype="float32", rank=rank, num_receivers=len(client.engines), address="127.0.0.1",
            port=self._num_connections, bucket_bytes=BUFFER_BYTES, timeout_s=self._timeout_s,
        )  # fmt: skip

    def _gathered(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for name in names:
            self._gather.wait(PATIENCE_S)
            yield name, TENSORS[name]
