"""A real engine of each family: the learner's logprobs, the learner's tensors after a sync, and its exported folder."""

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_scenarios import start_trainer
from plain_model import load_plain, whole_policy
from tiny_learner import free_port, mixed_groups

import tests.integration.environment  # noqa: F401
from learner.policy.padding import load_encoder
from learner.records import ScoredGroup, ScoredSequence
from learner.training.trainer import PolicyTrainer
from rollout.records import Sample
from tests.families.case import Case
from tests.families.packing import pack
from tests.integration.loop_client import LoopClient
from tests.integration.tiny import image_sample, rollout_config, text_sample

pytestmark = pytest.mark.slow

SAMPLES = [image_sample(0), image_sample(1, (168, 56)), image_sample(2, (112, 112), (56, 84)), text_sample(3)]


def samples_of(case: Case) -> list[Sample]:
    return SAMPLES if case.takes_images else [replace(sample, images=()) for sample in SAMPLES]


@dataclass
class Observed:
    """What an engine of the learner's exported folder did, before and after it took the weights of a further step."""

    exported: list[Any]
    """Greedy completions of what it had read."""
    groups: list[Any]
    """Sampled under the weights that it was sent."""
    layout: dict[str, str]
    """The learner's name -> the engine's."""
    names: list[str]
    """The engine's tensors."""
    wrong: tuple[list[str], int]
    """The engine's tensors that differ from the learner's after the sync, and the number that was compared."""
    wrong_when_changed: tuple[list[str], int]
    """The same once every tensor of the learner has changed and none was sent."""


def connect(trainer: PolicyTrainer, client: LoopClient, dtype: str) -> Any:
    from learner.weight_sender import WeightSender

    backend = trainer.backend
    return WeightSender(
        backend.full_shapes(), backend.full_tensors, client=client, backend="gloo", dtype=dtype, rank=0,
        num_receivers=1, address="127.0.0.1", port=free_port(), bucket_bytes=100_000, timeout_s=60.0,
        changing=backend.changing_names(),
    )  # fmt: skip


async def generate(engine: Any, samples: Sequence[Sample], spec: Any) -> list[Any]:
    return list(await asyncio.gather(*(engine.generate_group(s.sample_id, s, spec) for s in samples)))


async def compare(engine: Any, sender: Any, layout: dict[str, str]) -> tuple[list[str], int]:
    from orchestration.workers.weight_sync import compare_fingerprints
    from rollout.fingerprint import fingerprint

    sent = await asyncio.to_thread(sender.fingerprints, list(layout), fingerprint)
    return compare_fingerprints(sent, await engine.weight_fingerprints(sorted(set(layout.values()))), layout)


async def observe(case: Case, trainer: PolicyTrainer, folders: Sequence[Path]) -> Observed:
    from rollout.engine import GenerationEngine
    from rollout.records import SamplingSpec

    (before, after), samples = folders, samples_of(case)
    trainer.train_step(mixed_groups(case.name), step=0)
    trainer.export(before)
    engine = GenerationEngine(
        rollout_config(max_model_len=256, max_images_per_prompt=2, dtype=case.engine_dtype), before
    )
    exported = await generate(engine, samples, SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=12))

    trainer.train_step(mixed_groups(case.name), step=1)
    trainer.export(after)
    client = LoopClient(engine, asyncio.get_running_loop())
    client.weight_version = "1"
    sender = await asyncio.to_thread(connect, trainer, client, case.engine_dtype)
    await engine.pause()
    await asyncio.to_thread(sender.send)
    await engine.resume()
    layout = await engine.weight_layout(sender.names())
    wrong = await compare(engine, sender, layout)
    groups = await generate(
        engine, samples, SamplingSpec(group_size=3, temperature=1.0, max_completion_tokens=16, seed=5)
    )
    with torch.no_grad():
        for parameter in trainer.backend.policy.parameters():
            parameter.add_(0.01)
    wrong_when_changed = await compare(engine, sender, layout)
    names = await engine.weight_names()
    sender.close()
    engine.close()
    return Observed(
        exported=exported, groups=groups, layout=layout, names=names, wrong=wrong,
        wrong_when_changed=wrong_when_changed,
    )  # fmt: skip


@pytest.fixture(scope="session")
def exports(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The learner's weights that the engine reads, and those that it is sent."""
    folder = tmp_path_factory.mktemp(f"exports_{case.name}")
    return folder / "before", folder / "after"


@pytest.fixture(scope="session")
def observed(case: Case, folder: Path, own_family: str | None, exports: tuple[Path, Path]) -> Observed:
    trainer = start_trainer(0, 1, 0, folder, family=own_family)
    try:
        return asyncio.run(observe(case, trainer, exports))
    finally:
        trainer.close()


def test_engine_and_learner_have_the_same_logprobs(
    case: Case, own_family: str | None, observed: Observed, exports: tuple[Path, Path], differences: Any
) -> None:
    """Of what was sampled, token by token, against the learner's own pass over the whole groups."""
    from rollout.placeholders import banned_token_ids

    _, after = exports
    policy = whole_policy(after, banned_token_ids=banned_token_ids(after), own_family=own_family)
    groups = [
        ScoredGroup(
            group_id=group.group_id,
            task=group.sample.task,
            prompt_token_ids=group.prompt_token_ids,
            images=tuple(image.data for image in group.sample.images),
            sequences=tuple(
                ScoredSequence(
                    completion_token_ids=generation.token_ids,
                    behaviour_logprobs=generation.logprobs,
                    reward=0.0,
                    truncated=False,
                    masked=False,
                )
                for generation in group.generations
            ),
        )
        for group in observed.groups
    ]
    batch = pack(policy, load_encoder(after, policy.family), groups)
    with torch.no_grad():
        logprobs, _ = policy(batch)

    differences.check(
        "engine = learner: logprobs", case.name, batch.behaviour_logprobs, logprobs, atol=case.engine_atol
    )


def test_all_tensors_are_the_learners_after_a_sync_and_every_change_is_noticed(
    case: Case, observed: Observed, differences: Any
) -> None:
    wrong, num_compared = observed.wrong

    assert wrong == []
    assert num_compared == len(set(observed.layout.values())) == len(observed.names)
    assert observed.wrong_when_changed[0] == list(dict.fromkeys(observed.layout.values()))
    differences.state("tensors after sync", case.name, f"{num_compared} equal")


def test_the_exported_folder_gives_equal_greedy_tokens_in_transformers_and_vllm(
    case: Case, observed: Observed, exports: tuple[Path, Path], differences: Any
) -> None:
    """The engine's tokens are transformers' best ones; in bfloat16, best up to what the engine's logprobs are off."""

    from rollout.placeholders import banned_token_ids

    export, _ = exports
    _, report = case.model_class.from_pretrained(export, output_loading_info=True)
    assert not any(report.values()), report
    model, read = load_plain(export, case.name).eval(), prompt_reader(case, export)
    banned, num_tokens, num_best, regret = banned_token_ids(export), 0, 0, 0.0
    for sample, group in zip(samples_of(case), observed.exported, strict=True):
        inputs = read(sample)
        assert inputs["input_ids"][0].tolist() == group.prompt_token_ids.tolist()
        chosen = torch.tensor(group.generations[0].token_ids.tolist())
        with torch.no_grad():
            logits = model(**followed_by(inputs, chosen)).logits[0, -len(chosen) - 1 : -1]
        logits[:, banned] = -torch.inf
        logprobs = logits.float().log_softmax(-1)
        behind = logprobs.max(-1).values - logprobs.gather(-1, chosen[:, None])[:, 0]
        num_tokens, num_best = num_tokens + len(chosen), num_best + int((logprobs.argmax(-1) == chosen).sum())
        regret = max(regret, float(behind.max()))

    assert regret <= 2 * case.engine_atol
    assert num_best == num_tokens or case.engine_dtype == "bfloat16"
    is_same = num_best == num_tokens
    said = f"{num_tokens} tokens equal" if is_same else f"{num_best} of {num_tokens} equal, others {regret:.0e} behind"
    differences.state("export in transformers and vLLM", case.name, said)


def prompt_reader(case: Case, folder: Path) -> Callable[[Sample], dict[str, torch.Tensor]]:
    """Return what makes transformers' inputs of a sample's question and pictures, by the folder's own processor."""
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)

    def read(sample: Sample) -> dict[str, torch.Tensor]:
        pictures = [Image.open(io.BytesIO(image.data)) for image in sample.images]
        content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": sample.question}]
        messages = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        given = {"images": pictures or None} if case.takes_images else {}
        return dict(processor(text=[text], **given, return_tensors="pt"))

    return read


def followed_by(inputs: dict[str, torch.Tensor], token_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the inputs of a prompt [1, P] with a completion [T] behind it, whose tokens are text."""
    shape = inputs["input_ids"].shape
    added = {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
    text = torch.zeros_like(token_ids)
    return {
        name: torch.cat([value, added.get(name, text)[None]], 1) if value.shape == shape else value
        for name, value in inputs.items()
    }
