"""Configs and datasets that plans are made for."""

import functools
import hashlib
from dataclasses import replace
from pathlib import Path

from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.models.measured import measured_with
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.model import ModelConfig
from rollout.dataset import write_rows
from tests.unit.plan.published import PUBLISHED

NODE = "cluster.nodes=[{count: 1, gpus: 8, gpu: h100_80gb, cpus: 96, memory_gib: 1024.0}]"
GPU_RUN = (
    "model=qwen2_5_vl_7b",
    "data=parquet",
    "rollout=vllm_gpu",
    "learner=fsdp_gpu",
    "cluster=ray",
    "training=default",
    "run_dir=/shared/run",
    "cache_dir=/shared/cache",
)
"""Qwen2.5-VL-7B on four and four GPUs; machines are still to be named."""


def settings(*overrides: str) -> ExperimentConfig:
    return build_settings(compose(overrides))


def gpu_settings(*overrides: str) -> ExperimentConfig:
    return settings(*GPU_RUN, NODE, *overrides)


ANSWERS = {"iou": "[10, 20, 110, 220]", "match_yesno": "yes", "match_mcq": "A", "open": "A dog on a lawn."}
"""References that their rewards read."""


def row(number: int, *, question: str = "How many?", sizes: tuple[tuple[int, int], ...] = ((448, 448),),
        task: str = "chart", source: str = "drawn", prompt_tokens: int | None = 300,
        image_tokens: int | None = 256) -> dict[str, object]:  # fmt: skip
    """A row whose pictures hold no pixels, which a plan never reads."""
    data = b"never opened"
    return {
        "sample_id": f"row-{number}",
        "source": source,
        "source_id": "",
        "license": "",
        "task": task,
        "system": "",
        "history": [],
        "question": question,
        "images": [
            {
                "bytes": data,
                "path": None,
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "width": width,
                "height": height,
            }
            for width, height in sizes
        ],
        "options": [],
        "answer": ANSWERS.get(task, "3"),
        "answer_type": "",
        "stratum": "",
        "prompt_tokens": prompt_tokens,
        "image_tokens": image_tokens,
        "difficulty": None,
        "metadata": [],
    }


@functools.cache
def record() -> str:
    """What the runs of `gpu_settings` measure prompts with, as far as it is known without the model's folder."""
    config = gpu_settings()
    return measured_with(config.model, None, config.rollout.prompt_spec).record


def dataset(path: Path, rows: list[dict[str, object]], measured: str | None = None) -> Path:
    write_rows(path, rows, measured_with=record() if measured is None else measured)
    return path


QWEN_PROCESSOR = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
"""As published with every size."""


def gpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """Qwen2.5-VL-7B on four learner ranks of FSDP2 and four engines of one GPU each, as the GPU groups have it."""
    gpu = ["learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray", f"run_dir={tmp_path / 'run'}"]
    model = ModelConfig(
        path=None,
        family=None,
        coord_mode="pixel_resized",
        hf_config=PUBLISHED["qwen2_5_vl_7b"],
        hf_processor=QWEN_PROCESSOR,
    )
    return replace(build_config(compose([*gpu, *overrides])), model=model)


def cpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """The embedded default."""
    return build_config(compose([f"run_dir={tmp_path / 'run'}", *overrides]))
