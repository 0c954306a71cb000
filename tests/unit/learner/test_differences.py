"""Differences on the gloo channel: what an engine's worker puts together is what was published, bit for bit."""

import math
from collections.abc import Collection, Iterator

import pytest
import torch

pytest.importorskip("vllm", reason="the weight wire is vLLM's")

from learner.broadcast import WHOLE, LastPublication, whole
from learner.weight_sender import WeightSender
from rollout.fingerprint import fingerprint
from tests.unit.wire_worker import Worker, connect


class Policy:
    """Tensors that change a little at a time: a table, matrices that engines merge, a vector, a scalar."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(0)
        shapes: dict[str, tuple[int, ...]] = {
            "table": (64, 24),
            "q": (24, 24),
            "k": (8, 24),
            "norm": (24,),
            "scale": (),
        }
        self.masters = {name: torch.randn(shape, generator=self.generator) * 0.02 for name, shape in shapes.items()}
        self.dtype = dtype

    def step(self, rate: float) -> None:
        for tensor in self.masters.values():
            tensor += rate * torch.randn(tensor.shape, generator=self.generator).sign()

    def published(self) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.dtype) for name, tensor in self.masters.items()}

    def tensors(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, tensor) for name, tensor in self.published().items() if name in names)


def connected(policy: Policy, worker: Worker, *, sends_differences: bool = True) -> WeightSender:
    return connect(worker, policy.published(), policy.tensors, bucket_bytes=2_000, sends_differences=sends_differences)


def prints(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, int, int]]:
    return {name: fingerprint(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize(("dtype", "num_publications"), [(torch.bfloat16, 200), (torch.float32, 20)])
def test_after_each_of_many_publications_the_worker_holds_what_was_published(
    dtype: torch.dtype, num_publications: int
) -> None:
    policy, worker = Policy(dtype), Worker()
    sender = connected(policy, worker)
    full = sum(tensor.nbytes for tensor in policy.published().values())
    sent = []
    for number in range(num_publications):
        sent.append(sender.send())
        assert worker.held == prints(policy.published()), number
        policy.step(1e-2 if number % 50 == 49 else 1e-6)  # now and then so far that tensors come whole
    sender.close()
    worker.end.shutdown()

    assert sent[0] >= full
    few = sorted(sent)[num_publications // 2]
    assert few < full / 4 if dtype == torch.bfloat16 else few >= full


def test_after_a_broken_transfer_and_for_a_new_worker_everything_comes_whole() -> None:
    policy, worker = Policy(torch.bfloat16), Worker()
    sender = connected(policy, worker)
    whole_bytes = sender.send()
    policy.step(1e-6)
    before = worker.held
    worker.fails = True
    with pytest.raises(ConnectionError):
        sender.send()
    sender.close()
    assert worker.held == before

    worker.fails = False
    policy.step(1e-6)
    again = connected(policy, worker)
    assert again.send() == whole_bytes
    assert worker.held == prints(policy.published())
    policy.step(1e-6)
    assert again.send() < whole_bytes
    assert worker.held == prints(policy.published())
    again.close()

    replaced = Worker()
    sender = connected(policy, replaced)
    assert sender.send() == whole_bytes
    assert replaced.held == prints(policy.published())
    sender.close()


def test_without_differences_every_publication_is_whole() -> None:
    policy, worker = Policy(torch.bfloat16), Worker()
    sender = connected(policy, worker, sends_differences=False)
    first = sender.send()
    assert sender.send() == first
    assert worker.end._kept is None
    sender.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bits_are_compared_and_not_values(dtype: torch.dtype) -> None:
    last, tensor = LastPublication(), torch.zeros(64, dtype=dtype)
    tensor[3] = math.nan
    assert last.difference("w", tensor)[0] == WHOLE
    assert last.difference("w", tensor)[0] == 0
    tensor[5] = -0.0

    num_changed, payload = last.difference("w", tensor)

    assert (num_changed, len(payload)) == (1, 4 + tensor.itemsize)
    assert payload[:4].view(torch.int32).tolist() == [5]
    value = payload[4:].view(dtype)
    assert (value.item(), math.copysign(1.0, value.item())) == (0.0, -1.0)


def test_a_tensor_comes_whole_where_that_is_not_longer() -> None:
    last, tensor = LastPublication(), torch.zeros(12)
    last.difference("w", tensor)
    tensor[:5] = 1.0
    assert last.difference("w", tensor)[0] == 5  # 5 * 8 bytes of 48
    tensor[:6] = 2.0
    num_changed, payload = last.difference("w", tensor)
    assert (num_changed, payload.tolist()) == (WHOLE, whole(tensor)[1].tolist())
    tensor[0] = 3.0
    assert last.difference("w", tensor)[0] == 1


def test_a_worker_is_told_when_nothing_has_changed() -> None:
    policy, worker = Policy(torch.bfloat16), Worker()
    sender = connected(policy, worker)
    sender.send()
    assert sender.send() == 8 * len(policy.masters)  # the headers
    assert worker.held == prints(policy.published())
    sender.close()
