"""10,000 mixed requests through the reward pool: real Ray actors, the pool of a training run, groups of eight.

    python -m tests.benchmarks.bench_reward_pool [--actors 2] [--requests 10000]

Prints requests a second, the latency of a group under back-pressure (from the call to its summary) and while the pool
is idle, and how the pool compares with the same rewards in one process without Ray.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from orchestration.cluster.process import Placement
from orchestration.settings.cluster import FaultsConfig, RewardPoolConfig
from orchestration.storage.faults import FaultLog
from orchestration.workers.reward_pool import RewardActor, RewardPool
from orchestration.workers.tickets import to_reward_requests
from rewards import MixedReward, RewardConfig
from rollout.records import Generation, ImageBytes, RolloutGroup, Sample

GROUP_SIZE = 8
LIMITS = FaultsConfig(
    heartbeat_s=10.0,
    heartbeat_timeout_s=120.0,
    start_timeout_s=180.0,
    call_timeout_s=600.0,
    window_s=3600.0,
    max_engine_faults=0,
    max_reward_faults=0,
    max_learner_faults=0,
    max_transfer_faults=0,
    max_checkpoint_faults=0,
)
WIDTH = 256
TASKS = {
    "match_yesno": ("yes", ("yes", "No .", "maybe")),
    "match_mcq": ("B", ("B", "( C )", "A or B")),
    "chart": ("45", ("45", "47", "9", "$ 45")),
    "iou": ("[0, 0, 100, 100]", ("[ 0 , 0 , 100 , 90 ]", "[ 5 , 5 , 60 , 70 ]", "none")),
    "open": ("a brown dog runs over the grass", ("a brown dog sits", "the grass runs over a dog", "dog")),
}
WORDS = sorted({word for _, answers in TASKS.values() for answer in answers for word in answer.split()})
VOCABULARY = ["[UNK]", "<think>", "</think>", "<answer>", "</answer>", *WORDS, "the", "grass", "over", "runs"]


def write_model(folder: Path) -> Tokenizer:
    """Write what reward actors read of a checkpoint: tokenizer and embedding table."""
    ids = {word: index for index, word in enumerate(dict.fromkeys(VOCABULARY))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(0).standard_normal((len(ids), WIDTH), dtype=np.float32)
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors")
    return tokenizer


def make_groups(tokenizer: Tokenizer, count: int) -> list[RolloutGroup]:
    """Draw groups of all tasks in turn."""
    generator = random.Random(0)
    image = ImageBytes(data=b"\x89PNG" + bytes(20_000), width=640, height=480)
    return [_group(tokenizer, generator, image, index) for index in range(count)]


def _group(tokenizer: Tokenizer, generator: random.Random, image: ImageBytes, index: int) -> RolloutGroup:
    task = list(TASKS)[index % len(TASKS)]
    gold, answers = TASKS[task]
    sample = Sample(
        sample_id=f"s{index}",
        source="benchmark",
        task=task,
        question="",
        answer=gold,
        options=("red", "green", "blue") if task == "match_mcq" else (),
        images=(image,),
    )
    texts = [f"<think> a dog </think> <answer> {generator.choice(answers)} </answer>" for _ in range(GROUP_SIZE)]
    token_ids = [np.array(tokenizer.encode(text).ids, np.int32) for text in texts]
    return RolloutGroup(
        group_id=str(index),
        sample=sample,
        prompt_token_ids=np.arange(400, dtype=np.int32),
        image_input_sizes=((640, 480),),
        generations=tuple(
            Generation(
                token_ids=ids,
                logprobs=np.zeros(len(ids), np.float32),
                finish_reason="stop",
                weight_version_start=0,
                weight_version_end=0,
            )
            for ids in token_ids
        ),
        seconds=0.1,
    )


def score_alone(groups: Sequence[RolloutGroup], tokenizer: Tokenizer, folder: Path) -> float:
    """Give the seconds that the rewards take in this process."""
    with MixedReward.from_checkpoint(RewardConfig(), folder) as rewards:
        rewards.score(to_reward_requests(groups[0], ["a"] * GROUP_SIZE, coord_mode="pixel"))
        started = time.perf_counter()
        for group in groups:
            texts = tokenizer.decode_batch([generation.token_ids.tolist() for generation in group.generations])
            rewards.score(to_reward_requests(group, texts, coord_mode="pixel"))
        return time.perf_counter() - started


async def measure(pool: RewardPool, groups: Sequence[RolloutGroup]) -> tuple[float, list[float], list[float]]:
    """Give the seconds of all groups at once, their latencies, and latencies one by one."""
    await pool.ready()
    references = [ray.put(group) for group in groups]

    async def one(reference: ray.ObjectRef) -> float:
        started = time.perf_counter()
        await pool.score(reference, keep_texts=False)
        return time.perf_counter() - started

    idle = [await one(reference) for reference in references[:200]]
    started = time.perf_counter()
    loaded = await asyncio.gather(*(one(reference) for reference in references))
    return time.perf_counter() - started, list(loaded), idle


def main() -> None:
    """Run both sides and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--requests", type=int, default=10_000)
    sizes = parser.parse_args()
    os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = write_model(folder)
        groups = make_groups(tokenizer, sizes.requests // GROUP_SIZE)
        alone = score_alone(groups, tokenizer, folder)
        ray.init(include_dashboard=False, log_to_driver=False, num_cpus=sizes.actors + 1)
        try:
            placement = Placement(num_gpus=0, cores=(), threads=1)

            def start(index: int) -> ray.actor.ActorHandle:
                options = placement.actor_options()
                return RewardActor.options(**options).remote(
                    index, RewardConfig(), folder, "pixel", False, False, placement, folder
                )

            config = RewardPoolConfig(num_actors=sizes.actors, calls_per_actor=2)
            pool = RewardPool(start, config, LIMITS, FaultLog(LIMITS))
            seconds, loaded, idle = asyncio.run(measure(pool, groups))
            pool.close()
        finally:
            ray.shutdown()
    num_requests = len(groups) * GROUP_SIZE
    print(f"{num_requests} requests in {len(groups)} groups of {GROUP_SIZE}, five tasks, {sizes.actors} actors")
    print(f"pool           {num_requests / seconds:8.0f} requests/s")
    print(f"one process    {num_requests / alone:8.0f} requests/s without Ray (ratio {alone / seconds:.2f})")
    for title, latencies in (("all at once", loaded), ("one by one", idle)):
        p50, p99 = np.percentile(latencies, [50, 99])
        print(f"latency of a group, {title:12} p50 {1e3 * p50:8.2f} ms   p99 {1e3 * p99:8.2f} ms")


if __name__ == "__main__":
    main()
