"""Weights are gathered, cut and converted on the stream that trains, whichever streams vLLM packs them on."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_scenarios import start_trainer
from tiny_learner import free_port

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from vllm.distributed.weight_transfer import packed_tensor

from learner.backends import fsdp
from learner.backends.fsdp import GatheredBlock
from learner.weight_sender import PolicyWeights

BUFFER_BYTES = 100_000


class Stream:
    """Remembers how much the other streams had done when it waited for them last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_done = 0
        self.waited: dict[str, int] = {}

    def wait_stream(self, other: "Stream") -> None:
        self.waited[other.name] = other.num_done

    def synchronize(self) -> None: ...


class Streams:
    """A GPU's streams, recorded instead of run."""

    def __init__(self) -> None:
        self.training = Stream("training")
        self.packing = (Stream("packing 0"), Stream("packing 1"))
        self.current = self.training
        self.crossings: list[str] = []
        """What was done on another stream than the one that trains."""
        self.kept: list[str] = []
        """Streams for which a tensor's memory is kept, one entry a tensor."""

    @contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def work(self, what: str) -> None:
        self.current.num_done += 1
        if self.current is not self.training:
            self.crossings.append(what)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    made = Streams()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: made.current)
    monkeypatch.setattr(torch.cuda, "stream", made.use)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: made.kept.append(stream.name))
    monkeypatch.setattr(packed_tensor, "_get_streams", lambda *_: made.packing)
    return made


class Receivers:
    """Count what is broadcast."""

    num_broadcasts = 0

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        self.num_broadcasts += 1


def pack(source: PolicyWeights, streams: Streams) -> tuple[int, list[str], int]:
    """Run vLLM's producer; gives tensors packed, those packed before they were there, and the broadcasts."""
    too_early: list[str] = []
    count = 0

    def packed(item: tuple[str, torch.Tensor]) -> torch.Tensor:
        nonlocal count
        count += 1
        if streams.current.waited.get("training") != streams.training.num_done:
            too_early.append(item[0])
        return item[1]

    receivers = Receivers()
    packed_tensor.packed_nccl_broadcast_producer(
        iterator=iter(source), group=receivers, src=0, post_iter_func=packed, buffer_size_bytes=BUFFER_BYTES
    )
    return count, too_early, receivers.num_broadcasts


def test_no_tensor_of_a_gathered_block_is_cut_beside_its_gather(
    model_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start_trainer(0, 1, free_port(), model_path)
    try:
        streams: Streams = request.getfixturevalue("streams")

        class Recorded(GatheredBlock):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                streams.work("gather")
                super().__init__(*arguments, **options)

            def tensor(self, name: str) -> torch.Tensor:
                streams.work(name)
                return super().tensor(name)

        monkeypatch.setattr(fsdp, "GatheredBlock", Recorded)
        count, too_early, num_broadcasts = pack(
            PolicyWeights(trainer.backend.full_shapes(), trainer.backend.full_tensors, torch.float32), streams
        )
    finally:
        trainer.close()

    assert count == len(streams.kept) == 56
    assert num_broadcasts > 4, "both packing streams were used several times"
    assert set(streams.kept) == {"packing 0", "packing 1"}
    assert (streams.crossings, too_early) == ([], [])


def test_tensors_that_are_gathered_one_by_one_are_packed_after_a_wait_too(streams: Streams) -> None:
    shapes = {f"w{i}": (200, 50) for i in range(9)}

    def gathered(_: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in shapes.items():
            streams.work(name)
            yield name, torch.zeros(shape)

    count, too_early, _ = pack(PolicyWeights(shapes, gathered, torch.float32), streams)

    assert count == len(streams.kept) == 9
    assert (streams.crossings, too_early) == ([], [])


def test_on_the_stream_that_trains_nothing_waits(streams: Streams) -> None:
    source = PolicyWeights({"w": (2,)}, lambda _: iter([("w", torch.zeros(2))]), torch.float32)

    assert [name for name, _ in source] == ["w"]
    assert (streams.kept, streams.training.waited) == ([], {})
