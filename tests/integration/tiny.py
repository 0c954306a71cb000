"""A random tiny model of either family and what an engine needs beside it."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from rollout.config import RolloutConfig
from rollout.records import ImageBytes, Sample

CORPUS = ["what colour is the large red circle left of the small blue square? yes no 1 2 3"] * 20
CONF = Path(__file__).parents[2] / "conf"


def rollout_config(**engine: Any) -> RolloutConfig:
    """The CPU rollout of the default run, for a handful of short completions."""
    from orchestration.settings.strict import build

    values = yaml.safe_load((CONF / "rollout" / "vllm_cpu.yaml").read_text())
    values["engine"] |= {"max_num_seqs": 32, "max_model_len": 192, **engine}
    return build(RolloutConfig, values)


def save_tiny_model(
    folder: Path, *, family: str = "qwen2_5_vl", tied: bool = False, mlp_width: int | None = None
) -> Any:
    """Write a random model with its processor and give the model; sharp weights, so that sampling is not uniform."""
    import torch
    from transformers import AutoModelForImageTextToText

    from tests.tiny_models import make_tiny_model

    make_tiny_model(folder, family, corpus=CORPUS)
    if family == "internvl":
        allow_tiles(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    if tied or mlp_width:
        config = model.config
        config.tie_word_embeddings = tied
        config.text_config.tie_word_embeddings = tied
        config.text_config.intermediate_size = mlp_width or config.text_config.intermediate_size
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
    return perturb(model, folder)


def allow_tiles(folder: Path) -> None:
    """Let InternVL cut pictures into tiles with a thumbnail, as large checkpoints do; the demo's never does."""
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["max_patches"] = 4
    path.write_text(json.dumps(settings))


def perturb(model: Any, folder: Path | None = None) -> Any:
    """Change every weight; the engine must notice each."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    if folder is not None:
        model.save_pretrained(folder)
    return model


def copy_processor(source: Path, target: Path) -> None:
    """Everything of a model folder but weights and configuration."""
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "generation_config.json"):
            shutil.copy(path, target / path.name)


def image_sample(seed: int, *sizes: tuple[int, int], task: str = "chart") -> Sample:
    """A question about noise of the given sizes; one picture of 112 x 112 where none is given."""
    return question(seed, [noise(seed + 100 * i, size) for i, size in enumerate(sizes or [(112, 112)])], task)


def text_sample(seed: int) -> Sample:
    """A question about nothing that can be seen."""
    return question(seed, [], "math")


def question(seed: int, images: Sequence[ImageBytes], task: str) -> Sample:
    return Sample(
        sample_id=f"noise{seed}",
        source="test",
        task=task,
        question=f"what is {seed}?",
        answer="4",
        images=tuple(images),
    )


def noise(seed: int, size: tuple[int, int]) -> ImageBytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return ImageBytes(data=out.getvalue(), width=size[0], height=size[1])
