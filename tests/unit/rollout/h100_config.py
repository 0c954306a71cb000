"""Prints vLLM's whole configuration as an engine on an H100 gets it, where there is no GPU: a program for tests.

    python -m tests.unit.rollout.h100_config '[{"model": "/folder", "engine": {...}, "weight_channel": {...}}, ...]'

vLLM's build for CPU holds the Python of its build for GPUs. What it asks of a device and of compiled parts while it
builds a configuration is answered here as an H100 answers; everything that is decided is vLLM's own. One line of JSON
for each entry, or the error that vLLM raised.
"""

# ruff: noqa: E402 - the platform is chosen before anything of vLLM is imported

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Triton is taken without a driver, as vLLM takes it where Ray hides the GPUs

import torch
import yaml

for compiled in ("_C_stable_libtorch", "vllm_flash_attn._vllm_fa2_C", "vllm_flash_attn._vllm_fa3_C"):
    sys.modules[f"vllm.{compiled}"] = types.ModuleType(compiled)
kernels = torch.library.Library("_C", "FRAGMENT")
for kernel in ("cutlass_scaled_mm_supports_fp8", "cutlass_scaled_mm_supports_block_fp8"):
    kernels.define(f"{kernel}(int cuda_device_capability) -> bool")
    kernels.impl(kernel, lambda _: True, "CompositeExplicitAutograd")

from vllm import platforms
from vllm.platforms.cuda import NonNvmlCudaPlatform
from vllm.platforms.interface import DeviceCapability


class H100(NonNvmlCudaPlatform):
    """What a machine with eight of them answers."""

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
        return DeviceCapability(9, 0)

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return "NVIDIA H100 80GB HBM3"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return 84_930_000_000

    @classmethod
    def device_count(cls) -> int:
        return 8

    @classmethod
    def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
        return True

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return 132

    def is_cumem_allocator_available(self) -> bool:
        return True


platforms._current_platform = H100()
platforms.vllm_version_matches_substr = lambda _: False

import conf
import rollout.weight_channel  # noqa: F401
from orchestration.settings.strict import build
from rollout.config import RolloutConfig
from rollout.translation import engine_args


def built(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what vLLM decided for the settings of conf/rollout/vllm_gpu.yaml with an entry's over them."""
    values = yaml.safe_load((Path(str(conf.__file__)).parent / "rollout" / "vllm_gpu.yaml").read_text())
    for group in ("sampling", "engine", "weight_channel"):
        values[group] |= entry.get(group, {})
    config = engine_args(build(RolloutConfig, values), Path(entry["model"])).create_engine_config()
    scheduler, compilation = config.scheduler_config, config.compilation_config
    return {
        "v2_runner": config.use_v2_model_runner,
        "scheduler": scheduler.get_scheduler_cls().__name__,
        "async": scheduler.async_scheduling,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "batched_tokens": scheduler.max_num_batched_tokens,
        "encoder_cache_tokens": scheduler.encoder_cache_size,
        "compilation": compilation.mode.name,
        "cudagraphs": compilation.cudagraph_mode.name,
        "sleep": config.model_config.enable_sleep_mode,
        "logprobs": config.model_config.logprobs_mode,
        "executor": config.parallel_config.distributed_executor_backend,
        "weights": config.weight_transfer_config.backend,
    }


for entry in json.loads(sys.argv[1]):
    try:
        print(json.dumps(built(entry)), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
