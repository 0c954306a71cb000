"""Tensors that several workers share are compared whole, with every element at its own place."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("vllm", reason="the loaders are vLLM's")

from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from orchestration.workers.weight_sync import compare_fingerprints
from rollout.fingerprint import fingerprint, join_shards
from rollout.weight_channel import WeightInspector

HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, WIDTH, MLP_WIDTH, VOCAB_SIZE = 4, 8, 2, 32, 48, 100
STACKED = {
    "q_proj": ("qkv_proj", "q"), "k_proj": ("qkv_proj", "k"), "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0), "up_proj": ("gate_up_proj", 1),
}  # fmt: skip


class Model(torch.nn.Module):
    """Every kind of layer that vLLM's models of ours are made of, loaded as they load them."""

    packed_modules_mapping: ClassVar = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = SimpleNamespace(apply_list=lambda names: names)

    def get_language_model(self) -> torch.nn.Module:
        return self

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(VOCAB_SIZE, WIDTH)
        self.qkv_proj = QKVParallelLinear(WIDTH, HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, bias=True)
        self.o_proj = RowParallelLinear(NUM_HEADS * HEAD_DIM, WIDTH, bias=True)
        self.gate_up_proj = MergedColumnParallelLinear(WIDTH, [MLP_WIDTH] * 2, bias=False)
        self.down_proj = RowParallelLinear(MLP_WIDTH, WIDTH, bias=False)
        self.fc1 = ColumnParallelLinear(WIDTH, MLP_WIDTH, bias=True)
        self.tower_qkv = QKVParallelLinear(WIDTH, HEAD_DIM, NUM_HEADS, bias=True)
        self.router = ReplicatedLinear(WIDTH, WIDTH, bias=True)
        self.patch = torch.nn.Conv3d(3, WIDTH, (2, 4, 4), bias=False)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.lm_head = ParallelLMHead(VOCAB_SIZE, WIDTH, bias=True)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        parameters = dict(self.named_parameters())
        for name, tensor in weights:
            layer, _, kind = name.rpartition(".")
            own, *part = STACKED.get(layer, (layer,))
            parameter: Any = parameters[f"{own}.{kind}"]
            getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor, *part)


def checkpoint() -> dict[str, torch.Tensor]:
    """Whole tensors; biases begin as zeros, so that two shards of them differ in nothing but their place."""
    query, key = NUM_HEADS * HEAD_DIM, NUM_KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCAB_SIZE, WIDTH),
        "q_proj.weight": (query, WIDTH), "q_proj.bias": (query,),
        "k_proj.weight": (key, WIDTH), "k_proj.bias": (key,),
        "v_proj.weight": (key, WIDTH), "v_proj.bias": (key,),
        "o_proj.weight": (WIDTH, query), "o_proj.bias": (WIDTH,),
        "gate_proj.weight": (MLP_WIDTH, WIDTH), "up_proj.weight": (MLP_WIDTH, WIDTH),
        "down_proj.weight": (WIDTH, MLP_WIDTH),
        "fc1.weight": (MLP_WIDTH, WIDTH), "fc1.bias": (MLP_WIDTH,),
        "tower_qkv.weight": (3 * query, WIDTH), "tower_qkv.bias": (3 * query,),
        "router.weight": (WIDTH, WIDTH), "router.bias": (WIDTH,),
        "patch.weight": (WIDTH, 3, 2, 4, 4),
        "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
        "lm_head.weight": (VOCAB_SIZE, WIDTH), "lm_head.bias": (VOCAB_SIZE,),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.zeros(shape) if name in ("fc1.bias", "k_proj.bias") else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.fixture(params=[1, 2, 4, 8])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Model]]:
    """One model for each worker of an engine of so many, loaded by vLLM; with 4 and more, workers share key heads."""
    config = VllmConfig()
    made = []
    with set_current_vllm_config(config):
        for rank in range(request.param):
            group = SimpleNamespace(world_size=request.param, rank_in_group=rank)
            monkeypatch.setattr(parallel_state, "_TP", group)
            model = Model()
            model.load_weights(checkpoint().items())
            made.append(model)
        yield made


def compared(workers: list[Model]) -> tuple[list[str], int, int]:
    """Names that differ from the checkpoint, how many were compared, and of how many."""
    tensors = checkpoint()
    answers = []
    for model in workers:
        own: Any = WeightInspector()
        own.model_runner = SimpleNamespace(get_model=lambda model=model: model, lora_config=None)
        own.weight_transfer_engine = SimpleNamespace(shapes={name: list(t.shape) for name, t in tensors.items()})
        own.vllm_config, own.parallel_config = VllmConfig(), SimpleNamespace(tensor_parallel_size=len(workers))
        layout = own.weight_layout(list(tensors))
        answers.append(own.weight_fingerprints(sorted(set(layout.values()))))
    held = {name: join_shards(share for own in answers for share in own[name]) for name in answers[0]}
    wrong, count = compare_fingerprints({name: fingerprint(t) for name, t in tensors.items()}, held, layout)
    return wrong, count, len(held)


def test_every_tensor_is_compared_whole_whatever_the_number_of_workers(workers: list[Model]) -> None:
    wrong, count, total = compared(workers)

    assert wrong == []
    assert count == total == len(dict(workers[0].named_parameters()))


def test_rows_that_changed_places_on_one_worker_are_found(workers: list[Model]) -> None:
    names = [
        "down_proj.weight", "embed_tokens.weight", "gate_up_proj.weight", "lm_head.weight", "norm.weight",
        "o_proj.weight", "patch.weight", "qkv_proj.weight", "tower_qkv.bias", "tower_qkv.weight",
    ]  # fmt: skip
    for name in names:
        parameter = dict(workers[0].named_parameters())[name].data
        parameter[[0, 1]] = parameter[[1, 0]]

    assert sorted(compared(workers)[0]) == names


def test_columns_that_changed_places_on_one_worker_are_found(workers: list[Model]) -> None:
    parameter = workers[-1].down_proj.weight.data
    parameter[:, [0, 1]] = parameter[:, [1, 0]]

    assert compared(workers)[0] == ["down_proj.weight"]


def test_workers_that_hold_each_others_shard_are_found(workers: list[Model]) -> None:
    first, last = workers[0].gate_up_proj.weight.data, workers[-1].gate_up_proj.weight.data
    first[:], last[:] = last.clone(), first.clone()

    assert compared(workers)[0] == ([] if len(workers) == 1 else ["gate_up_proj.weight"])


def test_a_copy_that_one_worker_holds_alone_is_found(workers: list[Model]) -> None:
    workers[-1].norm.bias.data += 1

    assert compared(workers)[0] == ["norm.bias"]
