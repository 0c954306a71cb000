"""The gloo channel without an engine: a worker that takes tensors, and the sender that it is connected to."""

import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from learner.weight_sender import WeightSender
from rollout.fingerprint import fingerprint
from rollout.gloo_channel import GlooWeightTransferEngine
from rollout.records import Fingerprint

TIMEOUT_S = 60.0


class Worker:
    """An engine worker's end of the channel, called directly; loading into a model is vLLM's."""

    def __init__(self) -> None:
        parallel = SimpleNamespace(data_parallel_index=0, world_size=1, rank=0)
        config: Any = SimpleNamespace(parallel_config=parallel, model_config=None, lora_config=object())
        self.end = GlooWeightTransferEngine(None, config, torch.device("cpu"), torch.nn.Module())  # type: ignore[arg-type]
        self.fails = False

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.end.init_transfer_engine(self.end.parse_init_info(init_info))

    def start_weight_update(self) -> None:
        self.end.start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.end.update_weights(update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        if self.fails:
            raise ConnectionError("the engine is gone")
        self.end.finish_weight_update()

    @property
    def held(self) -> dict[str, Fingerprint]:
        return {name: fingerprint(tensor) for name, tensor in self.end.factors.items()}


def connect(
    worker: Worker,
    tensors: Mapping[str, torch.Tensor],
    read: Callable[[Collection[str]], Iterator[tuple[str, torch.Tensor]]],
    **options: Any,
) -> WeightSender:
    """Connect a worker to a sender of what `read` yields, in shapes and type of `tensors`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [dtype] = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    return WeightSender(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}, read, client=worker, backend="gloo",
        dtype=dtype, rank=0, num_receivers=1, address="127.0.0.1", port=port, timeout_s=TIMEOUT_S, **options,
    )  # fmt: skip
