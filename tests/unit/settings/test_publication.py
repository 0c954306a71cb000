"""Adapters alone, and differences alone: what of the settings goes with them, and what engines are told."""

from typing import get_args

import pytest

from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, adapter_of, check_publication
from orchestration.settings.strict import build
from rollout.config import ADAPTER_RANKS, AdapterConfig, WeightChannelConfig
from rollout.errors import RolloutError

ADAPTER = ("+learner/lora=default", "learner.lora.publish=adapter", "learner.freeze=[vision_tower]")
GPU = ("learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray")
SHARED = (*GPU, "cluster.layout=colocated", "training.max_staleness=0", "rollout.weight_channel.backend=ipc")


def settings(*overrides: str) -> ExperimentConfig:
    return build(ExperimentConfig, compose([*overrides, "run_dir=/tmp/run", "cache_dir=/tmp/cache"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ADAPTER,
        (*GPU, *ADAPTER),
        (*ADAPTER, "cluster.layout=colocated", "training.max_staleness=0"),
        (*SHARED, "+learner/lora=default"),
        (*ADAPTER, "learner.lora.rank=512"),
    ],
)
def test_settings_that_go_with_adapters_alone_are_taken(overrides: tuple[str, ...]) -> None:
    check_publication(settings(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*SHARED, *ADAPTER), r"let go of all weights when they sleep; set cluster\.layout=disaggregated, or learner"),
        (
            (*ADAPTER, "learner.dtype=bfloat16"),
            r"engine\.dtype is float32 and learner\.dtype bfloat16 .*set rollout\.engine\.dtype=bfloat16, or learner",
        ),
    ],
)
def test_settings_that_do_not_are_refused_with_the_remedy(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_publication(settings(*overrides))


def test_engines_are_told_rank_and_layers_where_they_add_the_adapter_themselves() -> None:
    assert adapter_of(settings("+learner/lora=default").learner) is None
    adapter = adapter_of(settings(*ADAPTER, "learner.lora.rank=24", "learner.lora.target_modules=[q_proj]").learner)
    assert adapter == AdapterConfig(rank=24, target_modules=("q_proj",))
    assert adapter.buffer_rank == 32


def test_ranks_of_buffers_are_vllms() -> None:
    lora = pytest.importorskip("vllm.config.lora")
    assert get_args(lora.MaxLoRARanks) == ADAPTER_RANKS


def test_a_rank_for_which_engines_have_no_buffers_is_refused_with_the_remedy() -> None:
    config = settings(*ADAPTER, "learner.lora.rank=513")
    with pytest.raises(RolloutError, match=r"rank is 513 .*up to 512; set a lower rank, or learner\.lora\.publish"):
        adapter_of(config.learner)


def test_differences_need_the_channel_that_has_them() -> None:
    assert WeightChannelConfig(backend="gloo", differences=True).differences
    with pytest.raises(RolloutError, match=r"differences is true with .*backend=nccl, .*set differences=false, or"):
        WeightChannelConfig(backend="nccl", differences=True)
