"""Both ends of vLLM's NCCL channel are told the same packing; the network itself needs two GPUs."""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from learner.broadcast import NCCL_BUFFERS
from learner.weight_sender import WeightSender


class Engines:
    """Keeps the invitation."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.invited = init_info


def gather_too_early(names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    raise AssertionError("shapes are known: nothing is gathered before the first transfer")


def connect(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Any, Any]:
    """Sender's settings and the engine's, as both hold them after the handshake."""
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: "endpoint")
    engines = Engines()
    values = {
        "backend": "nccl", "dtype": "bfloat16", "rank": 0, "num_receivers": 3, "address": "10.0.0.1", "port": 29500,
        "bucket_bytes": 123_456_789, "timeout_s": 1.0,
    } | settings  # fmt: skip
    sender = WeightSender({"w": (4, 4)}, gather_too_early, client=engines, **values)
    engine = NCCLWeightTransferEngine.__new__(NCCLWeightTransferEngine)
    return sender._engine, engine.parse_init_info(engines.invited)


def test_packing_of_the_sender_is_what_every_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, told = connect(monkeypatch)
    for name in ("packed", "packed_buffer_size_bytes", "packed_num_buffers"):
        assert getattr(told, name) == getattr(sender, name), name
    assert (told.packed, told.packed_buffer_size_bytes, told.packed_num_buffers) == (True, 123_456_789, NCCL_BUFFERS)


def test_engines_are_invited_behind_the_senders_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = connect(monkeypatch)
    assert (told.master_address, told.master_port, told.rank_offset, told.world_size) == ("10.0.0.1", 29500, 1, 4)
