"""Transfers over NCCL, without its network, which needs two GPUs.

Both ends are told the same packing. An engine that is lost costs one transfer: no other engine, rank or communicator.
"""

import time
from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from learner.broadcast import NCCL_BUFFERS
from learner.weight_sender import WeightSender
from tests.unit.rollout.nccl_stub import DIES, HANGS, TENSORS, Engine, Learner, Network

TIMEOUT_S = 0.8
"""Of the learner, where an engine hangs; one that dies is known of long before."""
ENGINES_S = 2.4
"""Of the engines: long enough to hear of the learner first."""
NUM_ENGINES = 3


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def engines(timeout_s: float = ENGINES_S) -> list[Engine]:
    return [Engine(index, timeout_s) for index in range(NUM_ENGINES)]


def assert_loaded(engine: Engine) -> None:
    assert list(engine.loaded) == list(TENSORS)
    assert all(torch.equal(engine.loaded[name], tensor) for name, tensor in TENSORS.items())


def test_without_losses_every_engine_loads_every_tensor_and_no_communicator_is_left(network: Network) -> None:
    learner, receivers = Learner(), engines()

    for _ in range(3):
        assert learner.publish(receivers) == (None, None)
        assert len(network.live) == 1 + NUM_ENGINES, "of the earlier connections none is left"

    for engine in receivers:
        assert_loaded(engine)
    learner.close()
    for engine in receivers:
        engine.receiver.shutdown()
    assert not network.live


@pytest.mark.parametrize(
    ("where", "how"),
    [
        *((where, DIES) for where in ("init", "start", "update", "w0", "w3", "w7", "finish")),
        *((where, HANGS) for where in ("init", "start", "update", "w3", "w7", "finish")),
    ],
)
def test_an_engine_that_is_lost_in_any_phase_costs_one_transfer(where: str, how: str, network: Network) -> None:
    """One that dies is known of at once, one that hangs after `timeout_s`; the publication is then repeated."""
    learner, receivers = Learner(), engines()
    receivers[1].ends = {where: how}

    began = time.monotonic()
    error, other = learner.publish(receivers, *([TIMEOUT_S] if how == HANGS else []))
    print(f"{how} in {where}: {time.monotonic() - began:.2f} s, {error}")

    assert other is None
    assert isinstance(error, TimeoutError) if how == HANGS else "engine 1 died" in str(error)
    left = [receivers[0], receivers[2]]
    if where.startswith(("w", "update")):
        # Whoever waited in a broadcast was told by the learner. After the last one nobody waits.
        told = [failure for engine in left for failure in engine.failures]
        assert len(told) == (0 if where == "w7" else 2)
        assert all("the learner has given the transfer up" in failure for failure in told)

    assert learner.publish(left) == (None, None)

    for engine in left:
        assert_loaded(engine)
    learner.close()
    for engine in left:
        engine.receiver.shutdown()
    # The lost engine's own went with its process.
    lost = receivers[1].receiver.model_update_group
    assert network.live == ({lost._group} if lost is not None and not lost._group.is_aborted else set())


def test_an_engine_leaves_a_transfer_whose_learner_is_gone(network: Network) -> None:
    learner, receivers = Learner(), engines(timeout_s=60.0)
    assert learner.publish(receivers) == (None, None)
    receiver = receivers[0].receiver

    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("Connection reset by peer")

    receiver.model_update_group._group.group.store = Gone()
    told = {"names": ["w0"], "dtype_names": ["float32"], "shapes": [[50]]}
    with pytest.raises(ConnectionError, match="the learner is gone: Connection reset by peer"):
        receiver.receive_weights(receiver.parse_update_info(told))


def test_an_engine_leaves_a_transfer_in_which_nothing_comes(network: Network) -> None:
    learner, receivers = Learner(), engines(timeout_s=0.3)
    assert learner.publish(receivers) == (None, None)
    receiver = receivers[0].receiver

    told = {"names": ["w0"], "dtype_names": ["float32"], "shapes": [[50]]}
    with pytest.raises(ConnectionError, match=r"nothing has come for rollout.weight_channel.timeout_s=0.3 s"):
        receiver.receive_weights(receiver.parse_update_info(told))


class InvitedEngines:
    """Keeps the invitation."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.invited = init_info


def gather_too_early(names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    raise AssertionError("shapes are known: nothing is gathered before the first transfer")


def connect(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Any, Any]:
    """Sender's settings and the engine's, as both hold them after the handshake."""
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: "endpoint")
    invited = InvitedEngines()
    values = {
        "backend": "nccl", "dtype": "bfloat16", "rank": 0, "num_receivers": 3, "address": "10.0.0.1", "port": 29500,
        "bucket_bytes": 123_456_789, "timeout_s": 1.0,
    } | settings  # fmt: skip
    sender = WeightSender({"w": (4, 4)}, gather_too_early, client=invited, **values)
    engine = NCCLWeightTransferEngine.__new__(NCCLWeightTransferEngine)
    return sender._engine, engine.parse_init_info(invited.invited)


def test_packing_of_the_sender_is_what_every_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, told = connect(monkeypatch)
    for name in ("packed", "packed_buffer_size_bytes", "packed_num_buffers"):
        assert getattr(told, name) == getattr(sender, name), name
    assert (told.packed, told.packed_buffer_size_bytes, told.packed_num_buffers) == (True, 123_456_789, NCCL_BUFFERS)


def test_engines_are_invited_behind_the_senders_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = connect(monkeypatch)
    assert (told.master_address, told.master_port, told.rank_offset, told.world_size) == ("10.0.0.1", 29500, 1, 4)
