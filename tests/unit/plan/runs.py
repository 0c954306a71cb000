"""Configs and datasets that plans are made for."""

import hashlib
from pathlib import Path

from orchestration.cli import compose
from orchestration.settings.experiment import ExperimentConfig, build_settings
from rollout.dataset import write_rows

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


def dataset(path: Path, rows: list[dict[str, object]]) -> Path:
    write_rows(path, rows)
    return path
