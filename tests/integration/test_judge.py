"""A judge with a server of the run's own: a real vLLM server, killed while it is asked, and a run that continues."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

import tests.integration.environment  # noqa: F401
from orchestration.cluster.guard import processes
from orchestration.cluster.reservations import actors_reserved
from orchestration.settings.composition import compose
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.storage.faults import FaultLog
from orchestration.workers.judge_pool import served_name
from orchestration.workers.reward_pool import start_reward_pool
from orchestration.workers.tickets import GroupSummary
from rewards.functions.tokenizer import load_tokenizer
from rollout.records import Generation, RolloutGroup, Sample
from tests.integration.driver import Driver
from tests.integration.tiny import save_tiny_model

ANSWERS = ("red", "a blue square", "small", "the large circle")
NUM_GROUPS = 6
START_LIMIT_S = 500.0


def judge(folder: Path, *, max_model_len: int = 128) -> dict[str, Any]:
    """Settings of a judge with a server of its own, whose replies are digits, drawn at random."""
    encode = load_tokenizer(folder / "model").encode
    digits = sorted({encode(digit, add_special_tokens=False).ids[-1] for digit in "123"})
    return {
        "model": str(folder / "model"),
        "prompt": "{question} {response}?",
        "votes": 2,
        "temperature": 1.0,
        "max_tokens": 1,
        "scale": {"low": 0, "high": 9},
        "max_in_flight": 2,
        "body": {"allowed_token_ids": digits},
        "arguments": [
            *("--dtype", "float32", "--max-model-len", str(max_model_len), "--max-num-seqs", "8"),
            *("--kv-cache-memory-bytes", str(32 << 20), "--block-size", "32"),
        ],
    }


def configured(folder: Path) -> ExperimentConfig:
    """The default run with a judge for every open row."""
    values: dict[str, Any] = compose([f"run_dir={folder / 'run'}", "cluster.reward_pool.num_actors=2"])
    values["cluster"]["faults"] |= {"start_timeout_s": START_LIMIT_S}
    values["reward"]["routes"]["open"] = "wise"
    values["reward"]["judges"]["wise"] = judge(folder)
    return build_settings(values)


def groups(folder: Path) -> list[RolloutGroup]:
    encode = load_tokenizer(folder / "model").encode
    return [
        RolloutGroup(
            group_id=f"0-{number}",
            sample=Sample(
                sample_id=f"s{number}",
                source="test",
                task="open",
                question=f"what is {number}",
                answer="red",
                images=(),
            ),
            prompt_token_ids=[1],
            generations=tuple(map(generation, (encode(answer, add_special_tokens=False).ids for answer in ANSWERS))),
            image_input_sizes=(),
            seconds=0.0,
        )
        for number in range(NUM_GROUPS)
    ]


def generation(tokens: Sequence[int]) -> Generation:
    return Generation(
        token_ids=tokens,
        logprobs=[-0.5] * len(tokens),
        finish_reason="stop",
        weight_version_start=0,
        weight_version_end=0,
    )


def servers(folder: Path) -> list[int]:
    """Processes of the judge's server, its lifeline among them."""
    name = served_name(folder / "model")
    found = []
    for pid in processes():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if name.encode() in arguments:
            found.append(pid)
    return found


def score(folder: Path, *, kills: bool) -> tuple[list[GroupSummary], dict[str, float]]:
    """Score all groups, one after the other; with `kills` the server is killed while it is asked about the third."""
    config = configured(folder)
    logs = folder / "run" / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    async def scored() -> tuple[list[GroupSummary], dict[str, float]]:
        log = FaultLog(config.cluster.faults)
        pool = start_reward_pool(config, folder / "model", reservations, logs, log)
        try:
            await pool.ready()
            summaries = []
            for number, group in enumerate(groups(folder)):
                asked = asyncio.create_task(pool.score(ray.put(group), keep_texts=False))
                await asyncio.sleep(0)
                if kills and number == 2:
                    for pid in servers(folder):
                        os.kill(pid, signal.SIGKILL)
                summaries.append((await asked)[1])
            return summaries, log.counts()
        finally:
            pool.close()

    with actors_reserved(config, logs, roles=("reward",)) as reservations:
        return asyncio.run(scored())


def counted(summaries: Sequence[GroupSummary], name: str) -> float:
    return sum(dict(summary.counts).get(f"judge/wise/{name}", 0.0) for summary in summaries)


@pytest.mark.slow
def test_a_server_killed_while_it_is_asked_loses_nothing_and_nothing_cached_is_asked_twice(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    num_votes = NUM_GROUPS * len(ANSWERS) * 2

    first, faults = score(tmp_path, kills=True)
    assert [failure for summary in first for failure in summary.failures] == []
    assert [len(summary.rewards) for summary in first] == [len(ANSWERS)] * NUM_GROUPS
    assert len({reward for summary in first for reward in summary.rewards}) > 1, "the judge said one thing of all"
    assert faults["faults/judge"] == 1
    assert counted(first, "num_waits") > 0
    assert counted(first, "num_votes") == num_votes
    assert not (tmp_path / "run" / "judges" / "wise" / "address").read_text().isspace()

    again, faults = score(tmp_path, kills=False)
    assert [summary.rewards for summary in again] == [summary.rewards for summary in first]
    assert counted(again, "num_requests") == 0
    assert counted(again, "num_cached") == num_votes
    assert faults["faults/judge"] == 0

    deadline = time.monotonic() + 30
    while servers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert servers(tmp_path) == []


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_outlives_its_judge_and_its_driver_and_asks_nothing_twice(tmp_path: Path, cache: Path) -> None:
    """The judge is killed after two steps, the driver after five, one of which no checkpoint has."""
    save_tiny_model(tmp_path / "model")
    reward = {"routes": {"open": "wise", "chart": "wise"}, "judges": {"wise": judge(tmp_path, max_model_len=512)}}
    faults = {"start_timeout_s": START_LIMIT_S}
    file = tmp_path / "judged.yaml"
    file.write_text(yaml.safe_dump({"reward": reward, "cluster": {"faults": faults}}))
    run = tmp_path / "run"
    arguments = (
        *("train", "experiment=cpu_smoke", "--config", str(file), f"run_dir={run}", f"cache_dir={cache}"),
        *("training.num_steps=7", "training.max_staleness=0", "training.checkpoint_every=4"),
        *("training.recorded_groups_per_step=4", "evaluation.enabled=false"),
    )
    killed = Driver(tmp_path, *arguments)
    killed.wait_for(run / "metrics.jsonl", 2, timeout_s=START_LIMIT_S)
    for pid in servers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    killed.wait_for(run / "metrics.jsonl", 5, timeout_s=START_LIMIT_S)
    killed.send(signal.SIGKILL)
    assert killed.finish() == -signal.SIGKILL
    assert killed.leftovers() == []
    assert servers(tmp_path) == []
    before = lines_of(run / "timings.jsonl")
    assert before[4]["faults/judge"] == 1
    assert {line["reward/failed_frac"] for line in lines_of(run / "metrics.jsonl")} == {0.0}
    samples = (run / "samples.jsonl").read_text().splitlines()

    resumed = Driver(tmp_path, *arguments)
    assert resumed.finish(START_LIMIT_S) == 0, resumed.output
    assert resumed.leftovers() == []
    assert "resumed step_00000004" in resumed.output
    assert (run / "samples.jsonl").read_text().splitlines()[: len(samples)] == samples
    timings = lines_of(run / "timings.jsonl")
    counts = [{key: line.get(f"judge/wise/{key}", 0.0) for key in ("num_votes", "num_cached")} for line in timings]
    assert counts[4]["num_votes"] == before[4]["judge/wise/num_votes"] > 0
    assert counts[4]["num_cached"] == counts[4]["num_votes"]
    assert sum(line["num_votes"] - line["num_cached"] for line in counts[5:]) > 0
    replies = Counter(
        line["key"] for path in (run / "judges" / "wise" / "replies").glob("*.jsonl") for line in lines_of(path)
    )
    assert set(replies.values()) == {1}
    positions = [entry[0] for line in lines_of(run / "ledger.jsonl") for entry in line["trained"]]
    assert positions == list(range(7 * 4))
