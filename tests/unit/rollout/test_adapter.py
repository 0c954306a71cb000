"""An adapter in an engine's worker: where its factors lie, and fingerprints of the shares of several workers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="the layers are vLLM's")

from vllm.model_executor.models.utils import WeightsMapper

from rollout.adapter import factor_fingerprint, factor_places, install
from rollout.errors import WeightSyncError
from rollout.fingerprint import fingerprint, join_shards
from rollout.translation import ADAPTER

RANK, BUFFER_RANK, COLUMNS = 3, 8, 6
ROWS = {"q_proj": 8, "k_proj": 4, "v_proj": 4}


class Split:
    """A layer of q, k and v, split by rows over two workers that hold the same key head twice."""

    n_slices, tp_size = 3, 2

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.lora_a_stacked = [torch.zeros(1, 1, BUFFER_RANK, COLUMNS) for _ in ROWS]
        self.lora_b_stacked = [torch.zeros(1, 1, rows, BUFFER_RANK) for rows in (4, 4, 4)]

    def slice_lora_a(self, factors: list[Any]) -> list[Any]:
        return factors

    def slice_lora_b(self, factors: list[Any]) -> list[Any]:
        own = slice(4 * self.worker, 4 * self.worker + 4)
        return [factors[0] if factors[0] is None else factors[0][own], *factors[1:]]

    def set_lora(self, factors: dict[str, torch.Tensor]) -> None:
        parts = self.slice_lora_b([factors[f"model.layers.0.{part}.lora_B.weight"] for part in ROWS])
        for number, part in enumerate(ROWS):
            self.lora_a_stacked[number][0, 0, :RANK] = factors[f"model.layers.0.{part}.lora_A.weight"]
            self.lora_b_stacked[number][0, 0, :, :RANK] = parts[number]


def manager_of(layer: Any) -> Any:
    mapper = WeightsMapper(orig_to_new_prefix={"model.": "language_model.model."})
    whole = "language_model.model.layers.0.qkv_proj"
    return SimpleNamespace(
        model=SimpleNamespace(hf_to_vllm_mapper=mapper),
        modules={whole: layer},
        packed_modules={whole: [f"language_model.model.layers.0.{part}" for part in ROWS]},
        lora_index_to_id=[ADAPTER.lora_int_id],
        lora_config=SimpleNamespace(lora_dtype=torch.float32),
        device="cpu",
    )


@pytest.fixture
def factors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {}
    for part, rows in ROWS.items():
        made[f"model.layers.0.{part}.lora_A.weight"] = torch.randn(RANK, COLUMNS)
        made[f"model.layers.0.{part}.lora_B.weight"] = torch.randn(rows, RANK)
    return made


def test_shares_of_all_workers_make_up_the_factors_that_were_sent(factors: dict[str, torch.Tensor]) -> None:
    managers = [manager_of(Split(worker)) for worker in range(2)]
    [places, again] = [factor_places(manager, [*factors, "model.norm.weight"]) for manager in managers]
    assert places == again
    assert places["model.layers.0.v_proj.lora_B.weight"] == "language_model.model.layers.0.qkv_proj.lora_B.2"
    assert places.keys() == factors.keys()
    for manager in managers:
        next(iter(manager.modules.values())).set_lora(factors)

    for name, place in places.items():
        shares = [factor_fingerprint(manager, place, factors[name].shape) for manager in managers]
        assert join_shards(shares) == fingerprint(factors[name]), name

    wrong = next(iter(managers[1].modules.values()))
    wrong.lora_b_stacked[0][0, 0, 0, 0] += 1.0
    name = "model.layers.0.q_proj.lora_B.weight"
    shares = [factor_fingerprint(manager, places[name], factors[name].shape) for manager in managers]
    assert join_shards(shares) != fingerprint(factors[name])


def test_a_layer_that_the_engine_cannot_adapt_is_named(factors: dict[str, torch.Tensor]) -> None:
    manager = manager_of(Split(0))
    stranger = {
        "model.visual.proj.lora_A.weight": torch.ones(RANK, 2),
        "model.visual.proj.lora_B.weight": torch.ones(2, RANK),
    }
    with pytest.raises(WeightSyncError, match=r"cannot adapt 1 of 4 layers, one is .*visual\.proj; set learner\.lora"):
        install(manager, {**factors, **stranger})
    with pytest.raises(WeightSyncError, match=r"ranks \[2, 3\]"):
        install(manager, {**factors, "model.x.lora_A.weight": torch.ones(2, 2)})
