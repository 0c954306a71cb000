"""Tokens per second through our engine actor and through vLLM's own `LLM.generate`: same prompts, settings and run.

    python -m tests.benchmarks.rollout_throughput [--groups 64] [--rounds 5] [--cores 0 1]

All engines stand all the time, may use the same cores with one thread each, and take turns; the others wait. vLLM's own
runs offline with its own scheduler and prompts that are built before the clock starts: once as it does by default, with
the core in a process of its own, and once in a single process, which saves handing every token over. Ours has the core
in a process of its own too, builds the prompts and crosses Ray twice, all within its time.
"""

import argparse
import asyncio
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import ray

from orchestration.cluster.machines import available_cores
from orchestration.cluster.process import Placement, settle
from orchestration.cluster.session import ray_session
from orchestration.inputs.machine import build_config
from orchestration.storage.faults import FaultLog
from orchestration.workers.engine_actor import EngineActor
from orchestration.workers.engine_pool import EnginePool
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

        from rollout.placeholders import banned_token_ids
        from rollout.prompt import PromptBuilder
        from rollout.translation import engine_args

        given = engine_args(config, model_path)
        settings = {field.name: getattr(given, field.name) for field in dataclasses.fields(EngineArgs)}
        own = {"worker_extension_cls": "", "scheduler_cls": None, "weight_transfer_config": None}
        self._llm = LLM.from_engine_args(EngineArgs(**(settings | own)))
        self._banned = banned_token_ids(model_path)
        self._prompts = PromptBuilder(model_path, spec=config.prompt_spec, max_images=1)

    def generate(self, samples: Sequence[Sample], specs: Sequence[SamplingSpec]) -> tuple[int, float]:
        """Completion tokens and the seconds that they took."""
        from vllm import SamplingParams

        built = [self._prompts.build(sample) for sample in samples]
        prompts = [{"prompt_token_ids": p.token_ids, "multi_modal_data": {"image": p.images}} for p in built]
        bias = dict.fromkeys(self._banned, -100.0)
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


async def measure(num_groups: int, num_rounds: int, cores: tuple[int, ...], folder: Path) -> None:
    """Let all take turns and print every round."""
    config = rollout_config(max_num_seqs=256, max_model_len=256)
    save_tiny_model(folder / "model")
    placement = Placement(num_gpus=0, cores=cores, threads=1)
    faults = dataclasses.replace(build_config(_default()).cluster.faults, heartbeat_timeout_s=120.0)

    def start(index: int) -> Any:
        options = {**placement.actor_options(), "max_concurrency": 10_000}
        return EngineActor.options(**options).remote(index, config, folder / "model", placement, folder)

    pool = EnginePool(start, stop=ray.kill, config=config, faults=faults, log=FaultLog(faults))
    raw = {name: _raw(flag, config, placement, folder) for name, flag in LAYOUTS.items()}
    await asyncio.gather(pool.ready(), *(engine.generate.remote([], []) for engine in raw.values()))
    ratios: dict[str, list[float]] = {name: [] for name in raw}
    for index in range(num_rounds + 1):
        samples = [image_sample(1000 * index + i) for i in range(num_groups)]
        drawn = {"group_size": 8, "temperature": 1.0, "max_completion_tokens": 64}
        specs = [SamplingSpec(**drawn, seed=100 * i) for i in range(num_groups)]
        started = time.perf_counter()
        groups = await asyncio.gather(
            *(pool.generate_group(f"{index}-{i}", samples[i], specs[i]) for i in range(num_groups))
        )
        seconds = time.perf_counter() - started
        ours = sum(len(g.token_ids) for group in await asyncio.gather(*groups) for g in group.generations)
        line = f"round {index}: {ours} tokens; actor {ours / seconds:6.0f} tokens/s"
        for name, engine in raw.items():
            theirs, theirs_s = await engine.generate.remote(samples, specs)
            assert theirs == ours, "other tokens than the actor's"
            if index:  # in the first round all warm up
                ratios[name].append((ours / seconds) / (theirs / theirs_s))
            line += f"; {name} {theirs / theirs_s:6.0f}"
        print(line, flush=True)
    for name, values in ratios.items():
        print(f"actor / LLM.generate, {name}: median {median(values):.3f}, {min(values):.3f} to {max(values):.3f}")
    await pool.close()
    for engine in raw.values():
        ray.kill(engine)


LAYOUTS = {"core in a process of its own": "1", "single process": "0"}
"""VLLM_ENABLE_V1_MULTIPROCESSING, of which 1 is vLLM's default."""


def _raw(flag: str, config: RolloutConfig, placement: Placement, folder: Path) -> Any:
    options = placement.actor_options()
    options["runtime_env"]["env_vars"]["VLLM_ENABLE_V1_MULTIPROCESSING"] = flag
    return RawEngine.options(**options).remote(config, folder / "model", placement, folder)


def _default() -> dict[str, object]:
    from orchestration.cli import compose

    return compose([f"run_dir={tempfile.gettempdir()}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="*", default=available_cores())
    asked = parser.parse_args()
    print(describe_hardware())
    cluster = build_config(_default()).cluster
    cores = tuple(asked.cores)
    with tempfile.TemporaryDirectory() as folder, ray_session(cluster, 1 + len(LAYOUTS), Path(folder)):
        asyncio.run(measure(asked.groups, asked.rounds, cores, Path(folder)))


if __name__ == "__main__":
    main()
