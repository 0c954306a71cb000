"""vLLM's own configuration of engines on GPUs, built where there is none, and what the plan counts of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.plan.engine_memory import SERVER_BATCHED_TOKENS
from rollout.config import EngineConfig
from rollout.errors import RolloutError
from tests.unit.model_folders import write_model_folder

SHORT = {"max_model_len": 256, "max_images_per_prompt": 1}
SAMPLING = {"max_completion_tokens": 64}
COLOCATED = {"backend": "ipc", "bucket_bytes": 2 << 30}
FAMILIES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "internvl": "InternVLForConditionalGeneration"}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every configuration that a test below asks for; vLLM is imported once for all of them."""
    folders = {}
    for family, architecture in FAMILIES.items():
        folder = folders[family] = write_model_folder(tmp_path_factory.mktemp("models") / family, family)
        config = json.loads((folder / "config.json").read_text()) | {"architectures": [architecture]}
        (folder / "config.json").write_text(json.dumps(config))
    qwen: dict[str, Any] = {"model": str(folders["qwen2_5_vl"]), "sampling": SAMPLING, "engine": SHORT}
    entries: dict[str, dict[str, Any]] = {
        "apart": qwen,
        "internvl": qwen | {"model": str(folders["internvl"])},
        "colocated": qwen | {"weight_channel": COLOCATED},
        "three workers": qwen | {"engine": SHORT | {"tensor_parallel_size": 3}},
        "told": qwen | {"engine": SHORT | {"max_num_batched_tokens": 4096}},
        "short": qwen | {"engine": SHORT | {"max_num_seqs": 2}},
        "eager": qwen | {"engine": SHORT | {"enforce_eager": True, "kv_cache_bytes": 1 << 30, "block_size": 32}},
        "refused": qwen | {"engine": SHORT | {"tensor_parallel_size": 2}},
    }
    command = [sys.executable, "-m", "tests.unit.rollout.h100_config", json.dumps(list(entries.values()))]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(entries), ran.stdout + ran.stderr
    return dict(zip(entries, lines, strict=True))


@pytest.mark.parametrize("name", ["apart", "internvl", "colocated", "three workers"])
def test_an_engine_on_an_h100_is_what_the_documentation_says(name: str, configs: dict[str, dict[str, Any]]) -> None:
    assert configs[name] == {
        "v2_runner": True,
        "scheduler": "KeepVisionAsyncScheduler",
        "async": True,
        "chunked_prefill": True,
        "batched_tokens": 8192,
        "encoder_cache_tokens": 8192,
        "compilation": "VLLM_COMPILE",
        "cudagraphs": "FULL_AND_PIECEWISE",
        "sleep": name == "colocated",
        "logprobs": "processed_logprobs",
        "executor": "mp" if name == "three workers" else "uni",
        "weights": "plain_ipc" if name == "colocated" else "watched_nccl",
    }


def test_batched_tokens_are_those_of_the_settings_and_no_more_than_all_sequences_hold(
    configs: dict[str, dict[str, Any]],
) -> None:
    assert configs["told"]["batched_tokens"] == 4096
    assert configs["short"]["batched_tokens"] == 2 * 256


def test_an_engine_without_compilation_and_with_a_cache_of_a_set_size_is_taken(
    configs: dict[str, dict[str, Any]],
) -> None:
    assert (configs["eager"]["compilation"], configs["eager"]["cudagraphs"]) == ("NONE", "NONE")
    assert configs["eager"]["batched_tokens"] == 8192


def test_what_vllm_refuses_is_seen_without_a_gpu(configs: dict[str, dict[str, Any]]) -> None:
    assert "attention heads (3) must be divisible by tensor parallel size (2)" in configs["refused"]["error"]


def test_the_plan_counts_the_batched_tokens_of_vllms_own_table(configs: dict[str, dict[str, Any]]) -> None:
    assert SERVER_BATCHED_TOKENS[70] == configs["apart"]["batched_tokens"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"device": "cuda", "max_num_batched_tokens": 255},
            r"rollout\.engine\.max_num_batched_tokens is 255, fewer than rollout\.engine\.max_num_seqs=256, .*raise",
        ),
        (
            {"device": "cpu", "max_num_batched_tokens": 1000},
            r"is 1000 with rollout\.engine\.device=cpu, .*use rollout\.engine\.max_model_len=1024 or more, or null",
        ),
    ],
)
def test_too_few_batched_tokens_are_refused_with_the_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        EngineConfig(dtype="float32", max_model_len=1024, max_num_seqs=256, **settings)


def test_a_step_on_cpu_has_room_for_a_whole_prompt_and_every_completion() -> None:
    def tokens(**settings: int) -> int:
        return EngineConfig(**{"device": "cpu", "dtype": "float32", "max_num_seqs": 8, **settings}).batched_tokens(2048)

    assert tokens(max_model_len=256) == 8192
    assert tokens(max_model_len=20_000) == 20_000
    assert tokens(max_model_len=256, max_num_seqs=10_000) == 10_000
    assert tokens(max_model_len=256, max_num_batched_tokens=300) == 300
