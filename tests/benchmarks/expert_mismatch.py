"""How far engine and learner are apart where a mixture of experts routes: log-probabilities and chosen experts.

    python -m tests.benchmarks.expert_mismatch [--experts 8:2 128:8] [--dtypes float32 bfloat16] [--completions 16]

A random tiny Qwen3-VL-MoE in a real engine on the CPU. Completions are sampled one at a time; hooks on the engine's
routers note the experts that each token gets, prompts as they are read and completions token by token. Then the learner
computes the same tokens in one pass, with hooks on its own routers. Log-probabilities are raw ones, the engine's of a
pass over given tokens. An engine and a learner of one type hold the same weights.
"""

import argparse
import asyncio
import os
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# Before vLLM is imported: the hooks are sent to the engine's core as a function.
os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

import tests.integration.environment  # noqa: F401
from learner.config import LearnerConfig, OptimizerConfig
from learner.records import ScoredGroup, ScoredSequence
from tests.benchmarks.hardware import describe_hardware
from tests.families.case import find_cases, write_model
from tests.families.cases.qwen3_vl_moe import config
from tests.integration.tiny import image_sample, rollout_config, text_sample

LAYERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A completion of an engine."""

    group: Any
    """RolloutGroup of one completion."""
    logprobs: NDArray[np.float32]
    """[T] raw."""
    experts: torch.Tensor
    """int64 [layers, tokens, K] chosen by the engine, sorted; all tokens but the last."""


def watch_routers(worker: Any, num_chosen: int) -> None:
    """Note in a worker of vLLM which experts each router chooses; runs in the engine's core."""
    worker.seen_experts = {}

    def note(name: str, _: Any, __: Any, output: Any) -> None:
        worker.seen_experts.setdefault(name, []).append(output[0].float().topk(num_chosen).indices.sort().values)

    for name, module in worker.model_runner.model.named_modules():
        if name.endswith("mlp.gate"):
            module.register_forward_hook(partial(note, name))


def take_experts(worker: Any) -> list[list[list[int]]]:
    """Return and forget what was noted, [layers][tokens][K]; runs in the engine's core."""
    import torch as worker_torch

    seen, worker.seen_experts = worker.seen_experts, {}
    return [worker_torch.cat(seen[name]).tolist() for name in sorted(seen)]


async def sample(folder: Path, dtype: str, num_chosen: int, num_completions: int) -> list[Sampled]:
    """Return completions of an engine, sampled one at a time."""
    from rollout.engine import GenerationEngine
    from rollout.records import SamplingSpec

    engine = GenerationEngine(rollout_config(dtype=dtype), folder)
    workers = engine._engine.collective_rpc
    found = []
    try:
        await workers(watch_routers, args=(num_chosen,))
        spec = SamplingSpec(group_size=1, temperature=1.0, max_completion_tokens=48, seed=3)
        for index in range(num_completions):
            asked = text_sample(index) if index % 4 == 3 else image_sample(index)
            await engine.reset_caches()
            await workers(take_experts)
            group = await engine.generate_group(str(index), asked, spec)
            [experts] = await workers(take_experts)
            logprobs = await engine.score_completion(asked, group.generations[0].token_ids)
            found.append(Sampled(group=group, logprobs=logprobs, experts=torch.tensor(experts)))
    finally:
        engine.close()
    return found


def compare(folder: Path, dtype: str, found: list[Sampled]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return |difference of logprobs| [tokens] to a learner, and how many experts of a token in a layer are others."""
    from learner.training.trainer import PolicyTrainer

    settings = LearnerConfig(model_path=str(folder), optimizer=OptimizerConfig(learning_rate=1e-5), dtype=dtype)  # type: ignore[arg-type]
    trainer = PolicyTrainer(settings, rank=0, world_size=1, master_address="127.0.0.1", master_port=0)
    seen: list[torch.Tensor] = []
    policy = trainer.backend.policy
    for layer in policy.family.expert_layers(policy.hf_model):
        layer.gate.register_forward_hook(lambda _, __, output: seen.append(output[2].sort().values))
    logprobs, changed = [], []
    try:
        for one in found:
            [generation] = one.group.generations
            seen.clear()
            sequence = ScoredSequence(
                completion_token_ids=generation.token_ids,
                behaviour_logprobs=generation.logprobs,
                reward=0.0,
                truncated=False,
            )
            [own] = trainer.sequence_logprobs(
                ScoredGroup(
                    group_id=one.group.group_id,
                    task=one.group.sample.task,
                    prompt_token_ids=one.group.prompt_token_ids,
                    images=tuple(image.data for image in one.group.sample.images),
                    sequences=(sequence,),
                )
            )
            logprobs.append(np.abs(own - one.logprobs))
            ours, theirs = torch.stack(seen), one.experts
            assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
            shared = (ours[..., :, None] == theirs[..., None, :]).any(-1).sum(-1)
            changed.append((ours.shape[-1] - shared).flatten().numpy())
    finally:
        trainer.close()
    return np.concatenate(logprobs), np.concatenate(changed)


def main() -> None:
    """Print a line for each model and pair of types."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", nargs="+", default=["8:2", "128:8"], help="experts of a layer : of a token")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--completions", type=int, default=16)
    options = parser.parse_args()
    print(describe_hardware())
    print(
        f"{'experts':>8} {'engine':>9} {'learner':>9} {'tokens':>7}   |dlogp| mean, 99%, max   "
        "other experts: tokens x layers, experts"
    )
    case = find_cases()["qwen3_vl_moe"]
    for experts in options.experts:
        num_experts, num_chosen = map(int, experts.split(":"))
        sizes = {"num_experts": num_experts, "num_experts_per_tok": num_chosen, "num_hidden_layers": LAYERS}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            write_model(folder, replace(case, config=partial(config, **sizes)), tie_word_embeddings=False)
            for engine in options.dtypes:
                found = asyncio.run(sample(folder, engine, num_chosen, options.completions))
                for learner in options.dtypes:
                    logprobs, changed = compare(folder, learner, found)
                    print(
                        f"{experts:>8} {engine:>9} {learner:>9} {len(logprobs):7d}   {logprobs.mean():.2g}, "
                        f"{np.quantile(logprobs, 0.99):.2g}, {logprobs.max():.2g}   {(changed > 0).mean():.2%} of "
                        f"{len(changed)}, {changed.sum() / (num_chosen * len(changed)):.2%}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
