"""What the learner's sender asks of its engines reaches each of them in a form that it takes, whatever the channel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

import rollout.weight_channel  # noqa: F401  makes our channels known to vLLM
from learner import broadcast
from learner.weight_sender import WeightSender
from orchestration.workers import learner_actor as engine_client
from orchestration.workers.learner_actor import EngineClient
from rollout.translation import VLLM_BACKENDS

WORKERS = 2
NUM_ENGINES = 3


class Call:
    """A method of an actor; keeps what it is called with."""

    def __init__(self, keep: Callable[[Any], None]) -> None:
        self.remote = keep


class Engine:
    """An engine's actor that takes invitations."""

    def __init__(self) -> None:
        self.invitations: list[dict[str, Any]] = []
        self.init_weight_transfer_engine = Call(self.invitations.append)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Engines, and a machine whose GPU and network need not be there to invite them."""
    monkeypatch.setattr(engine_client.ray, "get", lambda answers: answers)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Device", (), {"uuid": "GPU-1"})())
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: "endpoint")
    monkeypatch.setattr(broadcast, "stateless_init_torch_distributed_process_group", lambda *_, **__: None)
    return [Engine() for _ in range(NUM_ENGINES)]


@pytest.mark.parametrize("backend", ["nccl", "ipc", "gloo"])
def test_every_worker_takes_the_invitation_that_its_backends_sender_sends(backend: str, engines: list[Engine]) -> None:
    WeightSender(
        {"w": (4, 4)}, lambda _: iter(()), client=EngineClient(engines, workers_per_engine=WORKERS), backend=backend,
        dtype="bfloat16", rank=0, num_receivers=NUM_ENGINES * WORKERS, address="127.0.0.1", port=0, bucket_bytes=1024,
        timeout_s=1.0,
    )  # fmt: skip

    worker = WeightTransferEngineFactory._registry[VLLM_BACKENDS[backend]]()
    taken = [worker.init_info_cls(**engine.invitations[0]) for engine in engines]
    assert [len(engine.invitations) for engine in engines] == [1] * NUM_ENGINES
    if backend == "ipc":
        assert all(info.packed for info in taken)
    else:
        assert [info.rank_offset for info in taken] == [1, 1 + WORKERS, 1 + 2 * WORKERS]
        assert {info.world_size for info in taken} == {1 + NUM_ENGINES * WORKERS}
