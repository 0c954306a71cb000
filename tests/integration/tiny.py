"""A random tiny Qwen2.5-VL and what an engine needs beside it."""

import io
import shutil
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
    from orchestration.strict import build

    values = yaml.safe_load((CONF / "rollout" / "vllm_cpu.yaml").read_text())
    values["engine"] |= {"max_num_seqs": 32, "max_model_len": 192, **engine}
    return build(RolloutConfig, values)


def save_tiny_model(folder: Path, *, tied: bool = False) -> Any:
    """Write a random model with its processor and give the model; sharp weights, so that sampling is not uniform."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from orchestration.demo.tiny_model import make_tiny_model

    make_tiny_model(folder, corpus=CORPUS, seed=0)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    if tied:
        config = model.config
        config.tie_word_embeddings = True
        config.text_config.tie_word_embeddings = True
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
    return perturb(model, folder)


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


def image_sample(seed: int, *, size: tuple[int, int] = (112, 112), task: str = "chart") -> Sample:
    """A question about noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    image = ImageBytes(data=out.getvalue(), width=size[0], height=size[1])
    return Sample(
        sample_id=f"noise{seed}", source="test", task=task, question=f"what is {seed}?", answer="4", images=(image,)
    )
