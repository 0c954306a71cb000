"""The main job as a user runs it: Ray, vLLM on CPU, two learner ranks; killed, interrupted, continued."""

import json
import signal
from pathlib import Path

import pytest

from tests.integration.driver import Driver


def settings(run_dir: Path, cache: Path, *more: str, verb: str = "train") -> list[str]:
    return [verb, "experiment=cpu_smoke", f"run_dir={run_dir}", f"cache_dir={cache}", *more]


def steps_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_killed_run_leaves_nothing_behind_and_continues_to_the_same_bits(tmp_path: Path, cache: Path) -> None:
    # The adaptive curriculum has a history, which the checkpoint must carry over the kill.
    more = (
        "learner.num_ranks=2",
        "training.max_staleness=0",
        "data.stream.curriculum.kind=adaptive",
        "rollout.sampling.temperature=0.7",
    )
    whole = tmp_path / "whole"
    # In turns on the same cores, which is to change nothing either.
    unbroken = Driver(tmp_path, *settings(whole, cache, *more, "cluster.layout=colocated"))
    unbroken.wait_for(whole / "metrics.jsonl", 1)  # the cache is made; the rest goes on beside the next run

    run_dir = tmp_path / "run"
    arguments = settings(run_dir, cache, *more)
    killed = Driver(tmp_path, *arguments)
    killed.wait_for(run_dir / "metrics.jsonl", 2)
    killed.send(signal.SIGKILL)
    assert killed.finish() == -signal.SIGKILL
    assert killed.leftovers() == []
    assert unbroken.finish() == 0, unbroken.output
    check_turns(whole, num_steps=3)

    resumed = Driver(tmp_path, *arguments)
    assert resumed.finish() == 0, resumed.output
    assert resumed.leftovers() == []
    assert "resumed step_" in resumed.output
    for name in ("metrics.jsonl", "samples.jsonl", "ledger.jsonl", "export/model.safetensors"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes(), name

    metrics = steps_of(run_dir)
    assert [m["step"] for m in metrics] == [0, 1, 2]
    check_agreement(metrics)
    assert all(m["sync/num_compared_tensors"] > 0 for m in metrics)
    assert (run_dir / "report.html").stat().st_size > 10_000
    recorded = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert [r["position"] for r in recorded] == [0, 4, 8]

    again = Driver(tmp_path, *arguments)
    assert again.finish() == 0
    assert "has done all 3 steps" in again.output


def check_agreement(metrics: list[dict[str, float]]) -> None:
    """Engines and learner agree about the raw logprobs of given tokens, and about those of what was sampled."""
    assert max(m["sync/mismatch"] for m in metrics) < 1e-5
    assert max(m["policy/mismatch"] for m in metrics) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fewest", "most"), [("qwen2_5_vl", "null", 6272), ("internvl", 25088, 50176)])
def test_engines_and_learner_agree_at_a_temperature_above_one_and_under_limits_of_pictures(
    family: str, fewest: str | int, most: int, tmp_path: Path, cache: Path
) -> None:
    """Drawings of 112 x 112 pixels are shrunk by Qwen2.5-VL and cut in tiles by InternVL."""
    limits = (f"model.min_pixels={fewest}", f"model.max_pixels={most}")
    more = (f"model=tiny_{family}", *limits, "rollout.sampling.temperature=1.3", "training.max_staleness=0")
    driver = Driver(tmp_path, *settings(tmp_path / "run", cache, *more, "algorithm.kl_coef=0.01"))

    assert driver.finish() == 0, driver.output
    check_agreement(steps_of(tmp_path / "run"))


def check_turns(run_dir: Path, num_steps: int) -> None:
    """Engines of a colocated run do nothing while the learner works."""
    turns = [json.loads(line) for line in (run_dir / "turns.jsonl").read_text().splitlines()]
    # Begun by the first publication, then one for each step, and one for the export.
    assert [turn["turn"] for turn in turns] == ["learner", "engines"] * (num_steps + 1) + ["learner"]
    for learners, engines in zip(turns[:-1:2], turns[1::2], strict=True):
        assert learners["engines"] == engines["engines"]
        assert all(engine["num_unfinished"] == 0 for engine in learners["engines"])
    asked = [turn["engines"][0]["num_requests"] for turn in turns[::2]]
    assert asked[0] == 0
    assert asked == sorted(set(asked))


def evaluate(folder: Path, run_dir: Path, cache: Path, name: str, checkpoint: Path, *more: str) -> None:
    """Six held-out rows, a greedy completion and two sampled ones each."""
    asked = ("max_samples=6", "num_completions=2", "pass_ks=[1,2]", f"out={folder / name}", f"checkpoint={checkpoint}")
    driver = Driver(folder, *settings(run_dir, cache, *asked, *more, verb="evaluate"))
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []
    summary = json.loads((folder / name / "summary.json").read_text())
    assert (summary["overall"]["num_samples"], summary["overall"]["num_failed"]) == (6, 0)
    assert (folder / name / "page.html").stat().st_size > 5_000
    assert len((folder / name / "predictions.jsonl").read_text().splitlines()) == 6


@pytest.mark.slow
def test_a_checkpoint_and_the_export_of_its_run_give_the_same_answers(tmp_path: Path, cache: Path) -> None:
    run_dir = tmp_path / "run"
    assert Driver(tmp_path, *settings(run_dir, cache, "learner.num_ranks=2")).finish() == 0
    exported, loaded = tmp_path / "exported", tmp_path / "loaded"
    evaluate(tmp_path, run_dir, cache, "exported", run_dir)
    checkpoint = run_dir / "checkpoints" / "step_00000003"
    evaluate(tmp_path, run_dir, cache, "loaded", checkpoint, f"against={exported}")

    assert (exported / "predictions.jsonl").read_text() == (loaded / "predictions.jsonl").read_text()
    comparison = json.loads((loaded / "comparison.json").read_text())
    assert {metric["metric"] for metric in comparison["metrics"]} == {"greedy/task_reward", "sampled/task_reward"}
    assert all(metric["overall"]["difference"]["value"] == 0.0 for metric in comparison["metrics"])


@pytest.mark.slow
def test_interrupted_run_says_how_to_continue_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    run_dir = tmp_path / "run"
    driver = Driver(tmp_path, *settings(run_dir, cache, "training.num_steps=1000"))
    driver.wait_for(run_dir / "metrics.jsonl", 1)
    driver.send(signal.SIGINT)
    assert driver.finish() == 130, driver.output
    assert "the same command continues" in driver.output
    assert driver.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_deepspeed_goes_on_where_it_stopped(family: str, stage: int, tmp_path: Path, cache: Path) -> None:
    more = (f"model=tiny_{family}", f"learner=deepspeed_zero{stage}")
    for num_steps in (2, 3):
        driver = Driver(tmp_path, *settings(tmp_path / "run", cache, *more, f"training.num_steps={num_steps}"))
        assert driver.finish() == 0, driver.output
    assert "resumed step_00000002" in driver.output
    assert [m["step"] for m in steps_of(tmp_path / "run")] == [0, 1, 2]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_groups(tmp_path: Path, cache: Path) -> None:
    """The entropy bonus overflows float32, so the very first loss does."""
    driver = Driver(tmp_path, *settings(tmp_path / "run", cache, "algorithm.entropy_coef=1e39"))
    assert driver.finish() == 1, driver.output
    assert "step 0: loss -inf" in driver.output
    assert "in groups 0-0, 0-1, 0-2, 0-3; the update was not applied" in driver.output
    assert driver.leftovers() == []
