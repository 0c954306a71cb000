"""The engine's half of the weight transfer: our channels, and the inspection of live weights.

vLLM's NCCL channel, which here aborts a broken transfer, and vLLM's CUDA IPC channel, with handles sent as plain
values; gloo_channel.py has the one for machines without GPUs. Read beside learner/weight_sender.py and
learner/broadcast.py, the other half. vLLM imports this module in its worker process because `WeightInspector` is its
worker extension, which is what makes the channels known there.
"""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch.storage import TypedStorage
from vllm.config import ModelConfig, set_current_vllm_config
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo
from vllm.lora.model_manager import LoRAModelManager
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.weight_utils import initialize_single_dummy_weight
from vllm.model_executor.models import ModelRegistry, supports_multimodal

from conf.daemon_call import begin
from rollout.adapter import Factors, factor_fingerprint, factor_places, install, name_mapper, own_parameters
from rollout.core_watch import die_with_parent
from rollout.experts import CHILD, expert_share, own_name
from rollout.fingerprint import fingerprint, shard_fingerprint
from rollout.gloo_channel import GlooWeightTransferEngine, ShapesKnown
from rollout.shards import find_shards, plain_convolutions
from rollout.translation import BLANK

if TYPE_CHECKING:
    from vllm.config import VllmConfig

GIVEN_UP = "given_up"
"""Key of the group's store under which the learner writes why it aborted a transfer."""
POLL_S = 0.2
"""Time between two reads of that key; one is a message of a few bytes."""
PACKED = "packed_modules_mapping"
"""Attribute of vLLM's models: a merged layer -> the layers of a checkpoint in it."""


class ReopenedUpdates:
    """A receiver that loads tensors as they arrive; a new update may start after one that broke."""

    factors: Factors
    """Those that arrived last, where the engine adapts its model; it is then sent nothing else."""
    _is_open = False

    def start_weight_update(self) -> None:
        """Start an update; layers that wait for the rest of a broken one drop the tensors that they have."""
        if self.vllm_config.lora_config is not None:  # type: ignore[attr-defined]
            # Until the update ends, which sets the model again.
            self.model = self.factors = Factors()
            return
        if self._is_open:
            finalize_layerwise_reload(self.model, self.model_config)  # type: ignore[attr-defined]
        super().start_weight_update()  # type: ignore[misc]
        self._is_open = True

    def finish_weight_update(self) -> None:
        if self.vllm_config.lora_config is None:  # type: ignore[attr-defined]
            super().finish_weight_update()  # type: ignore[misc]
        self._is_open = False


class NcclEngine(ReopenedUpdates, ShapesKnown, nccl_engine.NCCLWeightTransferEngine):
    """vLLM's NCCL receiver, which also ends a transfer that the learner has aborted; see `_WatchedGroup`."""

    def __init__(
        self, config: WeightTransferConfig, vllm_config: "VllmConfig", device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._timeout_s = float(vllm_config.additional_config["weight_channel_timeout_s"])

    def init_transfer_engine(self, init_info: nccl_engine.NCCLWeightTransferInitInfo) -> None:
        """Join the learner's group; a second call replaces the first, whose communicator is destroyed.

        Raises:
            TimeoutError: the learner, or another engine, did not come.
        """
        self.shutdown()
        self.packed = init_info.packed
        self.packed_buffer_size_bytes = init_info.packed_buffer_size_bytes
        # Buffers of a receiver take turns on streams that do not wait for one another, although a layer is loaded on
        # one stream from buffers of several. One buffer is one stream; how tensors are packed does not depend on it.
        self.packed_num_buffers = 1
        joined = begin(nccl_engine.worker_init_process_group, init_info, self.parallel_config)
        if not wait([joined], self._timeout_s).done:
            joined.add_done_callback(lambda late: None if late.exception() else late.result().destroy())
            raise TimeoutError(
                f"weight channel: not everyone has joined within rollout.weight_channel.timeout_s={self._timeout_s:g}"
            )
        self.model_update_group = _WatchedGroup(joined.result(), self._timeout_s)

    def receive_weights(self, update_info: nccl_engine.NCCLWeightTransferUpdateInfo) -> None:
        """Receive and load all tensors.

        Raises:
            ConnectionError: the learner has aborted the transfer, is gone, or sends nothing for too long.
        """
        if self.model_update_group is None:
            raise RuntimeError("nccl weight channel: update_weights before init_weight_transfer_engine")
        with self.model_update_group.watched():
            super().receive_weights(update_info)


class _WatchedGroup:
    """The NCCL group of learner and engines, destroyed by another thread when a transfer breaks.

    An NCCL kernel waits for a lost peer forever, and the whole engine with it, until its communicator is aborted. So
    while tensors arrive, a second thread checks whether the learner has aborted the transfer, or is gone.
    """

    def __init__(self, group: Any, timeout_s: float) -> None:
        self._group = group
        self._timeout_s = timeout_s
        self._moved_at = 0.0
        self._cause: str | None = None

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        if self._cause is not None:
            raise ConnectionError(self._cause)
        self._moved_at = time.monotonic()
        self._group.broadcast(tensor, src=src)

    def destroy(self) -> None:
        """Abort what runs, and free the communicator's memory; twice is harmless."""
        self._group.destroy()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, abort broadcasts if the transfer breaks.

        Raises:
            ConnectionError: the transfer was aborted.
        """
        is_over = threading.Event()
        self._moved_at = time.monotonic()
        watch = begin(self._watch, is_over)
        try:
            yield
        except Exception as error:
            if self._cause is not None:
                # NCCL's own errors, or tensors that make no sense, come of the destroyed group.
                raise ConnectionError(self._cause) from error
            raise
        finally:
            is_over.set()
            wait([watch])
        if self._cause is not None:
            raise ConnectionError(self._cause)

    def _watch(self, is_over: threading.Event) -> None:
        store = self._group.group.store
        while not is_over.wait(POLL_S):
            try:
                if store.check([GIVEN_UP]):
                    self._cause = f"the learner has given the transfer up: {store.get(GIVEN_UP).decode()}"
            except Exception as error:
                self._cause = f"the learner is gone: {error}"
            if time.monotonic() - self._moved_at > self._timeout_s:
                self._cause = f"nothing has come for rollout.weight_channel.timeout_s={self._timeout_s:g} s"
            if self._cause is not None:
                self._group.destroy()
                return


class PlainIpcEngine(ReopenedUpdates, ShapesKnown, IPCWeightTransferEngine):
    """vLLM's CUDA IPC receiver, for handles that come as plain values.

    vLLM describes a shared buffer by the arguments of torch's `rebuild_cuda_tensor`, Python classes among them. Those
    cannot pass from the front end to the engine's core unless pickles are allowed (VLLM_ALLOW_INSECURE_SERIALIZATION),
    which would open that socket to anyone's code. Numbers and bytes pass as they are, and the classes are always the
    same three: they are put back here.
    """

    def parse_update_info(self, update_dict: dict[str, Any]) -> IPCWeightTransferUpdateInfo:
        handles = {uuid: whole_handle(plain) for uuid, plain in update_dict["ipc_handles"].items()}
        return super().parse_update_info({**update_dict, "ipc_handles": handles})


def whole_handle(plain: list[Any]) -> tuple[Any, ...]:
    """Return the arguments of `rebuild_cuda_tensor` from those that `plain_handle` of learner/weight_sender.py left."""
    size, stride, offset, *rest = plain
    return (torch.Tensor, torch.Size(size), tuple(stride), offset, TypedStorage, torch.uint8, *rest)


class BlankLoader(DummyModelLoader):
    """Reads buffers and no weights: parameters are small random numbers, until the learner sends its own.

    Buffers that are not in the folder keep the values that the model computes. vLLM's own dummy loader overwrites them
    all, among them those that normalise pixels.
    """

    def load_weights(self, model: torch.nn.Module, model_config: ModelConfig) -> None:
        for parameter in model.parameters():
            initialize_single_dummy_weight(parameter)
        stored = model.state_dict().keys()
        buffers = {name: buffer for name, buffer in model.named_buffers() if name in stored}
        mapper = name_mapper(model)
        for path in Path(model_config.model).glob("*.safetensors") if buffers else ():
            with safe_open(str(path), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    for name in mapper.apply_list([key]):
                        if name in buffers:
                            buffers[name].copy_(file.get_tensor(key))


class WeightInspector:
    """Worker extension: reads live weights back, so that engine and learner can be compared."""

    def weight_layout(self, names: list[str]) -> dict[str, str]:
        """Map checkpoint names to this engine's parameters that hold them, alone or merged with others.

        Names of one merged parameter are in the order of their tensors in it.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        own = dict(own_parameters(model)) | plain_convolutions(model)
        # InternVL's own is empty, and its language model has one; with Idefics3 it is the other way round.
        language = model.get_language_model() if supports_multimodal(model) else model
        packed = {**getattr(language, PACKED, {}), **getattr(model, PACKED, {})}
        merged = {part: whole for whole, parts in packed.items() for part in parts}
        places = {part: place for parts in packed.values() for place, part in enumerate(parts)}
        layout = {}
        for name in sorted(names, key=lambda name: max(places.get(part, 0) for part in name.split("."))):
            mapped = name_mapper(model).apply_list([name])
            candidate = mapped[0] if mapped else name
            if (experts := own_name(model, name)) is not None:
                candidate = experts
            elif candidate not in own:
                candidate = ".".join(merged.get(part, part) for part in candidate.split("."))
            if candidate in own and own[candidate].numel() > 0:
                layout[name] = candidate
        return layout if (manager := self._adapters()) is None else {**layout, **factor_places(manager, names)}

    def weight_names(self) -> list[str]:
        own = [name for name, one in own_parameters(self.model_runner.get_model()) if one.numel() > 0]  # type: ignore[attr-defined]
        if (manager := self._adapters()) is not None:
            own += factor_places(manager, self.weight_transfer_engine.shapes).values()  # type: ignore[attr-defined]
        return own

    def activate_adapter(self) -> None:
        """Compute with the factors that arrived last; after vLLM's own end of the update, which drops all adapters."""
        install(self._adapters(), self.weight_transfer_engine.factors)  # type: ignore[attr-defined]

    def _adapters(self) -> Any:
        """Return vLLM's LoRA manager; None in an engine that takes whole weights."""
        runner = self.model_runner  # type: ignore[attr-defined]
        return runner.lora_manager._adapter_manager if runner.lora_config else None

    def forget_weight_update(self) -> None:
        """Close an update that broke; it is still open in workers that received all its tensors."""
        if self._weight_update_active:  # type: ignore[has-type]
            self._weight_update_active = False
            self.weight_transfer_engine.reset_weight_update_target()  # type: ignore[attr-defined]

    def weight_fingerprints(self, names: list[str]) -> dict[str, list[tuple[int, int, int, int]]]:
        """Return what this worker's share adds to the fingerprints of own parameters, see `join_shards`.

        Tensors that one parameter merges (q, k and v) are taken to lie in it whole, one after the other, whatever the
        number of workers: then all workers' shares add up to what the learner makes of the whole tensors.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        own = dict(own_parameters(model)) | plain_convolutions(model)
        shapes = self.weight_transfer_engine.shapes  # type: ignore[attr-defined]
        wanted = set(names)
        members = {name: mine for name, mine in self.weight_layout(list(shapes)).items() if mine in wanted}
        firsts, sizes = {}, dict.fromkeys(names, 0)
        for name, mine in members.items():
            firsts[name] = sizes[mine]
            sizes[mine] += prod(shapes[name])
        shares: dict[str, list[tuple[int, int, int, int]]] = {}
        for name, mine in members.items():
            if mine.rpartition(".")[0].endswith(CHILD):
                shares[mine] = expert_share(model, mine, shapes[name])
            elif mine not in own:
                shares[mine] = [factor_fingerprint(self._adapters(), mine, shapes[name])]
        is_split = self.parallel_config.tensor_parallel_size > 1  # type: ignore[attr-defined]
        for name in (wanted & own.keys()) - shares.keys():
            # It holds all of them, or nothing was ever sent: of an adapted model it may then be any share.
            if sizes[name] == own[name].numel() or (sizes[name] == 0 and not is_split):
                shares[name] = [(0, *fingerprint(own[name]))]
        cut = {name: shapes[name] for name, mine in members.items() if mine not in shares}
        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            for shard in find_shards(model, cut):
                share = shard_fingerprint(own[shard.parameter], shard.indices, shard.shape, first=firsts[shard.name])
                shares.setdefault(shard.parameter, []).append(share)
        return {name: shares.get(name, []) for name in names}


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether to show a log line of vLLM: layers without new weights, or without an adapter, are intended."""
    return not any(text in record.getMessage() for text in ("Failed to load weights", "no matching PunicaWrapper"))


def register_channels() -> None:
    """Register our channels, our loader and our Gemma 4 with vLLM; calling twice is harmless."""
    for source in (initialize_layerwise_reload, LoRAModelManager):
        logging.getLogger(source.__module__).addFilter(_is_news)
    register_model_loader(BLANK)(BlankLoader)
    ModelRegistry.register_model("Gemma4ForConditionalGeneration", "rollout.gemma4:Gemma4")  # imported if it is built
    for name, engine in (
        ("gloo", GlooWeightTransferEngine),
        ("watched_nccl", NcclEngine),
        ("plain_ipc", PlainIpcEngine),
    ):
        if name not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(name, engine)


# vLLM resolves the worker extension before it builds the channel; importing is the only hook it offers there. The
# workers of a tensor-parallel engine are children of its core and are to go with it.
register_channels()
die_with_parent()
