"""Tokens per second through our engine actor and through vLLM's own `LLM.generate`: same prompts, settings and run.

    python -m tests.benchmarks.rollout_throughput [--groups 64] [--rounds 5]

Both engines stand all the time, each bound to the same core, and take turns; the one whose turn it is not waits. vLLM's
own runs offline, in one process, with its own scheduler and prompts that are built before the clock starts. Ours builds
the prompts, crosses Ray twice and has the front end beside the core process, all within its time.
"""

import argparse
import asyncio
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import ray

from orchestration.actors import settle
from orchestration.cluster import ClusterPlan, Placement, ray_session
from orchestration.config import build_config
from orchestration.faults import FaultLog
from orchestration.guard import guarded
from orchestration.pools.generators import start_generators
from rollout.config import RolloutConfig
from rollout.records import Sample, SamplingSpec
from tests.benchmarks.hardware import describe_hardware
from tests.integration.tiny import image_sample, rollout_config, save_tiny_model


@ray.remote
class RawEngine:
    """vLLM's offline engine with the settings of ours, without our scheduler, extension and weight channel."""

    def __init__(self, config: RolloutConfig, model_path: Path, placement: Placement, log_dir: Path) -> None:
        settle("raw", placement, log_dir)
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs

        from rollout.engine import _engine_args
        from rollout.prompt import PromptBuilder

        given = _engine_args(config, model_path)
        settings = {field.name: getattr(given, field.name) for field in dataclasses.fields(EngineArgs)}
        own = {"worker_extension_cls": "", "scheduler_cls": None, "weight_transfer_config": None}
        self._llm = LLM.from_engine_args(EngineArgs(**(settings | own)))
        self._prompts = PromptBuilder(model_path, system_prompt=config.system_prompt, max_images=1)

    def generate(self, samples: Sequence[Sample], specs: Sequence[SamplingSpec]) -> tuple[int, float]:
        """Completion tokens and the seconds that they took."""
        from vllm import SamplingParams

        built = [self._prompts.build(sample) for sample in samples]
        prompts = [{"prompt_token_ids": p.token_ids, "multi_modal_data": {"image": p.images}} for p in built]
        bias = dict.fromkeys(self._prompts.banned_token_ids(), -100.0)
        params = [
            SamplingParams(
                n=spec.group_size,
                temperature=spec.temperature,
                max_tokens=spec.max_completion_tokens,
                seed=spec.seed,
                logprobs=0,
                flat_logprobs=True,
                logit_bias=bias,
                detokenize=False,
            )
            for spec in specs
        ]
        self._llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return sum(len(completion.token_ids) for output in outputs for completion in output.outputs), seconds


async def measure(num_groups: int, num_rounds: int, folder: Path) -> None:
    """Let both take turns and print every round."""
    config = rollout_config(max_num_seqs=256, max_model_len=256)
    save_tiny_model(folder / "model")
    placement = Placement(num_gpus=0, cores=(0,), threads=1)
    faults = dataclasses.replace(build_config(_default()).cluster.faults, heartbeat_timeout_s=120.0)
    log = FaultLog(faults)
    pool = start_generators(config, folder / "model", [placement], folder, faults=faults, log=log)
    raw = RawEngine.options(**placement.actor_options()).remote(config, folder / "model", placement, folder)
    await asyncio.gather(pool.ready(), raw.generate.remote([], []))
    ratios = []
    for index in range(num_rounds + 1):
        samples = [image_sample(1000 * index + i) for i in range(num_groups)]
        specs = [
            SamplingSpec(group_size=8, temperature=1.0, max_completion_tokens=64, seed=100 * i)
            for i in range(num_groups)
        ]
        started = time.perf_counter()
        groups = await asyncio.gather(
            *(pool.generate_group(f"{index}-{i}", samples[i], specs[i]) for i in range(num_groups))
        )
        ours_s = time.perf_counter() - started
        ours = sum(len(g.token_ids) for group in await asyncio.gather(*groups) for g in group.generations)
        theirs, theirs_s = await raw.generate.remote(samples, specs)
        if index == 0:
            continue  # both warm up
        ratios.append((ours / ours_s) / (theirs / theirs_s))
        print(
            f"round {index}: actor {ours / ours_s:7.0f} tokens/s ({ours} tokens), LLM.generate "
            f"{theirs / theirs_s:7.0f} tokens/s ({theirs} tokens), ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"actor / LLM.generate: median {median(ratios):.3f} of {num_rounds} rounds")
    await pool.close()
    ray.kill(raw)


def _default() -> dict[str, object]:
    from orchestration.cli import compose

    return compose([f"run_dir={tempfile.gettempdir()}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(describe_hardware())
    cluster = build_config(_default()).cluster
    nothing = ClusterPlan(engines=(), learner_ranks=(), rewards=())
    with tempfile.TemporaryDirectory() as folder, guarded(), ray_session(cluster, nothing, Path(folder)):
        asyncio.run(measure(asked.groups, asked.rounds, Path(folder)))


if __name__ == "__main__":
    main()
