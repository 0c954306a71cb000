"""The whole job where engines are sent a part of the weights; an engine is killed, then the job, which goes on."""

import json
import random
import signal
from pathlib import Path
from statistics import median

import pytest

from tests.integration.driver import Driver
from tests.integration.test_chaos import kill_one, lines_of, num_steps_done, take_a_step

WAYS = {
    "adapter": (
        "+learner/lora=default",
        "learner.lora.publish=adapter",
        "learner.freeze=[vision_tower,projector]",
        "learner.optimizer.learning_rate=2e-3",
        "training=async",
    ),
    "differences": (
        "rollout=vllm_cpu_bfloat16",
        "rollout.weight_channel.differences=true",
        "learner.optimizer.learning_rate=1e-6",
    ),
}
MOST = {"adapter": 1e-5, "differences": 0.02}
"""Mismatch of engine and learner: both in float32, and an engine in bfloat16."""


@pytest.mark.slow  # the job twice, with two engines
@pytest.mark.parametrize("way", WAYS)
def test_a_new_engine_and_a_continued_run_get_what_the_others_have(way: str, tmp_path: Path, cache: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = [
        "train",
        "experiment=cpu_smoke",
        f"run_dir={run_dir}",
        f"cache_dir={cache}",
        *WAYS[way],
        "rollout.engines=2",
        "algorithm.entropy_coef=1.0",  # the rewards of the smoke run are zero; this moves the weights at every step
        "learner.optimizer.schedule=constant",
        "evaluation.enabled=false",
        "training.num_steps=1000",
    ]
    timings = run_dir / "timings.jsonl"
    driver = Driver(tmp_path, *arguments)
    driver.wait_for(timings, 3)
    kill_one(driver, run_dir, "engine core", random.Random(0))
    driver.poll(lambda: lines_of(timings)[-1]["rollout/num_engines"] == 1.0, 120.0)
    driver.poll(lambda: lines_of(timings)[-1]["rollout/num_engines"] == 2.0, 300.0)
    for _ in range(2):
        take_a_step(driver, run_dir)
    driver.send(signal.SIGKILL)
    assert driver.finish() == -signal.SIGKILL
    assert driver.leftovers() == []

    done = num_steps_done(run_dir)
    resumed = Driver(tmp_path, *arguments)
    resumed.wait_for(run_dir / "metrics.jsonl", done + 3)
    resumed.send(signal.SIGTERM)
    assert resumed.finish() == 75, resumed.output
    assert resumed.leftovers() == []
    assert "resumed step_" in resumed.output

    steps, sent = lines_of(run_dir / "metrics.jsonl"), [line["sync/sent_bytes"] for line in lines_of(timings)]
    mismatches = [step["sync/mismatch"] for step in steps]
    moved = [step["policy/kl_behaviour"] for step in steps]
    print(
        f"{way}: {len(steps)} steps, mismatch {median(mismatches):.1e} in the median, {max(mismatches):.1e} at most; "
        f"{median(moved):.1e} moved in the median; bytes sent {json.dumps(sorted(set(sent)))}"
    )
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert max(mismatches) < MOST[way]
    assert all(step["sync/num_compared_tensors"] > 0 for step in steps)
    if way == "adapter":
        assert max(moved) > 1e-3
        assert len(set(sent)) == 1
    else:
        whole = max(sent)  # when the engine had come back
        assert sent.count(whole) < len(sent) / 2
        assert median(sent) < whole / 4
        assert sent[-1] < whole / 4
