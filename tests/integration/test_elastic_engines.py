"""An engine that nobody waited for joins a run when a node arrives, and goes with it; the run never stops for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.storage.faults import Role
from tests.integration.driver import Driver
from tests.integration.two_nodes import ENVIRONMENT, two_nodes

NUM_STEPS = 5000
"""More than the test lets the run take; it is asked to leave."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def roles_of(faults: Path) -> list[str]:
    return [fault["role"] for fault in lines_of(faults)]


@pytest.mark.slow
def test_engine_joins_with_a_node_takes_groups_and_leaves_with_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    # The head has room for one engine, one reward actor and one learner rank.
    with two_nodes(head_cpus=3, second_cpus=None) as nodes:
        driver = Driver(
            tmp_path,
            "train",
            "experiment=cpu_smoke",
            f"run_dir={tmp_path / 'run'}",
            f"cache_dir={cache}",
            f"cluster.address={nodes.address}",
            "rollout.max_engines=2",
            "training.max_staleness=1",
            "cluster.faults.heartbeat_s=1",
            "cluster.faults.max_engine_faults=0",
            f"training.num_steps={NUM_STEPS}",
            f"training.checkpoint_every={NUM_STEPS}",
            "evaluation.enabled=false",
        )
        timings, faults = tmp_path / "run" / "timings.jsonl", tmp_path / "run" / "faults.jsonl"
        driver.wait_for(timings, 2)
        assert {step["rollout/num_engines"] for step in lines_of(timings)} == {1.0}

        nodes.add_second(2)
        driver.poll(lambda: lines_of(timings)[-1]["rollout/num_groups_elastic"] >= 4.0, timeout_s=200.0)
        assert lines_of(timings)[-1]["rollout/num_engines"] == 2.0
        assert len(nodes.second.actors("EngineActor")) == 1

        nodes.second.kill()
        driver.poll(lambda: faults.is_file() and Role.ELASTIC in roles_of(faults), timeout_s=100.0)
        num_steps = len(lines_of(timings))
        driver.wait_for(timings, num_steps + 3)
        assert lines_of(timings)[-1]["rollout/num_engines"] == 1.0
        assert Role.ENGINE not in roles_of(faults)

        nodes.add_second(2)
        before = lines_of(timings)[-1]["rollout/num_groups_elastic"]
        driver.poll(lambda: lines_of(timings)[-1]["rollout/num_groups_elastic"] > before, timeout_s=200.0)
        driver.process.terminate()
        assert driver.finish() != 0
        assert "the same command continues" in driver.output
        assert driver.leftovers() == []
        steps = [step["step"] for step in lines_of(timings)]
        assert steps == list(range(len(steps)))
