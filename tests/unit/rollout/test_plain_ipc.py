"""CUDA IPC handles on their way from a learner rank through vLLM's own wire to an engine's worker, without pickles."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from torch.storage import TypedStorage
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from learner.errors import LearnerError
from learner.weight_sender import IpcClient, plain_handle
from rollout.weight_channel import PlainIpcEngine, whole_handle

# As torch's reduce_tensor gives them for a buffer of 4096 bytes; what the bytes say is the driver's.
HANDLE = (
    torch.Tensor, torch.Size([4096]), (1,), 0, TypedStorage, torch.uint8, 0, b"\x0chandle" * 9, 4096, 512, False,
    b"counter", 3, b"event" * 12, True,
)  # fmt: skip
UPDATE = IPCWeightTransferUpdateInfo(
    names=["a", "b"],
    dtype_names=["bfloat16", "bfloat16"],
    shapes=[[4, 4], [8]],
    ipc_handles={"GPU-1": HANDLE, "GPU-2": HANDLE},
    tensor_sizes=[32, 16],
)


class Engines:
    """A client that keeps what it was given, and fails as it is told."""

    def __init__(self, fails_in: str = "") -> None:
        self.calls: list[str] = []
        self.infos: list[dict[str, Any]] = []
        self.fails_in = fails_in

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_in:
            raise RuntimeError(f"engine 1 died in {name}")

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._called("init")

    def start_weight_update(self) -> None:
        self._called("start")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.infos.append(update_info)
        self._called("update")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._called("finish")


def as_the_core_gets_it(info: dict[str, Any]) -> dict[str, Any]:
    """Through the encoding in which vLLM's front end calls its core."""
    _, _, _, kwargs = MsgpackDecoder().decode(
        MsgpackEncoder().encode(("update_weights", None, (), {"update_info": info}))
    )
    return kwargs["update_info"]


def test_plain_handles_pass_vllms_wire_and_become_what_torch_made() -> None:
    engines = Engines()
    IpcClient(engines, timeout_s=60.0).update_weights(asdict(UPDATE))

    received = PlainIpcEngine.parse_update_info(_unbuilt(), as_the_core_gets_it(engines.infos[0]))

    assert received == UPDATE
    assert isinstance(received.ipc_handles["GPU-2"][1], torch.Size)


def test_vllms_own_description_does_not_pass_its_own_wire() -> None:
    """The reason for the plain form; once vLLM lets classes through, it can go."""
    with pytest.raises(TypeError, match="not serializable"):
        as_the_core_gets_it(asdict(UPDATE))


def test_handle_of_anything_but_bytes_is_refused() -> None:
    with pytest.raises(LearnerError, match="buffers of bytes"):
        plain_handle((*HANDLE[:5], torch.float32, *HANDLE[6:]))


def test_whole_handle_undoes_plain_handle() -> None:
    assert whole_handle(plain_handle(HANDLE)) == HANDLE


@pytest.mark.parametrize("broken", ["start", "update", "finish"])
def test_engine_that_dies_is_told_once_and_the_ranks_pack_on(broken: str) -> None:
    engines = Engines(fails_in=broken)
    client = IpcClient(engines, timeout_s=60.0)

    client.start_weight_update()
    for _ in range(3):
        client.update_weights(asdict(UPDATE))
    client.finish_weight_update()

    assert engines.calls[-1] == broken
    assert engines.calls.count(broken) == 1
    with pytest.raises(RuntimeError, match=f"engine 1 died in {broken}"):
        client.check()


def test_next_update_after_a_broken_one_begins_anew() -> None:
    engines = Engines(fails_in="update")
    client = IpcClient(engines, timeout_s=60.0)
    client.start_weight_update()
    client.update_weights(asdict(UPDATE))
    engines.fails_in = ""

    client.start_weight_update()
    client.update_weights(asdict(UPDATE))
    client.finish_weight_update("3")

    client.check()
    assert engines.calls[-3:] == ["start", "update", "finish"]


def test_layers_of_a_broken_update_are_let_go_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm.model_executor.model_loader.reload as reload

    import rollout.weight_channel as channel

    done: list[str] = []
    finalize = lambda *_: done.append("finalize")  # noqa: E731
    monkeypatch.setattr(reload, "initialize_layerwise_reload", lambda _: done.append("initialize"))
    monkeypatch.setattr(reload, "finalize_layerwise_reload", finalize)
    monkeypatch.setattr(channel, "finalize_layerwise_reload", finalize)
    engine = _unbuilt()
    engine.model = engine.model_config = None
    engine.vllm_config = SimpleNamespace(lora_config=None)
    engine._packed_importer = type("Importer", (), {"close": lambda self: None})()

    engine.start_weight_update()
    engine.start_weight_update()
    engine.finish_weight_update()
    engine.start_weight_update()

    assert done == ["initialize", "finalize", "initialize", "finalize", "initialize"]


def _unbuilt() -> PlainIpcEngine:
    """Without the GPU that its constructor wants."""
    return PlainIpcEngine.__new__(PlainIpcEngine)
