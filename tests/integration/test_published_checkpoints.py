"""A folder as its makers publish it: planned, trained for a step, evaluated, exported, and served again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import tests.integration.environment  # noqa: F401
from tests.integration.driver import Driver
from tests.integration.tiny import rollout_config
from tests.published_checkpoints import PublishedName, write_published

MAX_MODEL_LEN = 512
"""A tile of InternVL alone is 256 tokens."""
WEIGHTS = (".safetensors", ".safetensors.index.json")


def run(tmp_path: Path, cache: Path, verb: str, model: Path, *more: str) -> None:
    """Call a command about one step on the model, and expect success."""
    group = "internvl" if "internvl" in model.name else "qwen2_5_vl"
    arguments = (
        "experiment=cpu_smoke", f"run_dir={tmp_path / 'run'}", f"cache_dir={cache}", f"model={group}",
        f"model.path={model}", f"rollout.engine.max_model_len={MAX_MODEL_LEN}", *more,
    )  # fmt: skip
    driver = Driver(tmp_path, verb, *arguments)
    assert driver.finish() == 0, driver.output


def types_of(folder: Path) -> dict[str, str]:
    """Name and stored type of every tensor of a folder."""
    from safetensors import safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update({name: file.get_slice(name).get_dtype() for name in file.keys()})  # noqa: SIM118
    return found


async def engine_answers(folder: Path, samples: list[Any]) -> list[Any]:
    """Greedy completions of an engine on a folder."""
    from rollout.engine import GenerationEngine
    from rollout.records import SamplingSpec

    engine = GenerationEngine(rollout_config(max_model_len=MAX_MODEL_LEN), folder)
    greedy = SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=8)
    groups = await asyncio.gather(*(engine.generate_group(f"g{i}", s, greedy) for i, s in enumerate(samples)))
    engine.close()
    return list(groups)


def greedy_tokens(model: Any, processor: Any, folder: Path, sample: Any, prompt: list[int], length: int) -> list[int]:
    """Greedy completion of transformers' model, placeholder tokens left out."""
    import torch

    from rollout.placeholders import banned_token_ids
    from tests.integration.test_engine import as_processed

    vision = as_processed(processor, sample)
    for name in ("input_ids", "attention_mask"):
        vision.pop(name)
    ids = torch.tensor([prompt])
    for _ in range(length):
        if model.config.model_type == "qwen2_5_vl":
            vision["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        with torch.no_grad():
            logits = model(input_ids=ids, **vision).logits[0, -1]
        logits[banned_token_ids(folder)] = -torch.inf
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    return [int(token) for token in ids[0, len(prompt) :]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "internvl3_1b"])
def test_a_published_folder_trains_and_its_export_is_one_like_it(
    name: PublishedName, tmp_path: Path, cache: Path
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from tests.integration.tiny import image_sample, text_sample

    model = tmp_path / name
    published = write_published(model, name)
    run(tmp_path, cache, "plan", model)
    # Random completions earn nothing; the entropy term moves the weights all the same.
    step = ("training.num_steps=1", "algorithm.entropy_coef=0.1", "learner.optimizer.learning_rate=0.01")
    run(tmp_path, cache, "train", model, *step)
    export = tmp_path / "run" / "export"

    [metrics] = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics["sync/num_compared_tensors"] > 10
    assert metrics["sync/mismatch"] < 1e-4
    assert types_of(export) == dict.fromkeys(published, "BF16") == types_of(model)
    for path in model.iterdir():
        if not path.name.endswith(WEIGHTS):
            assert (export / path.name).read_bytes() == path.read_bytes(), path.name

    loaded, report = AutoModelForImageTextToText.from_pretrained(export, output_loading_info=True, dtype=torch.float32)
    assert not any(report.values()), report
    began = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    moved = [key for key, value in loaded.state_dict().items() if not torch.equal(value, began.state_dict()[key])]
    assert len(moved) > len(published) / 2
    samples = [image_sample(1), text_sample(2)]
    processor = AutoProcessor.from_pretrained(export)
    for group in asyncio.run(engine_answers(export, samples)):
        served = group.generations[0].token_ids.tolist()
        prompt = group.prompt_token_ids.tolist()
        assert served == greedy_tokens(loaded, processor, export, group.sample, prompt, len(served))

    run(
        tmp_path, cache, "evaluate", model, f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'scores'}",
        "max_samples=4", "num_completions=2", "pass_ks=[1,2]",
    )  # fmt: skip
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["overall"]["num_failed"] == 0
