"""Engines and learner that take turns on the same cores: the same run to the bit as with cores of their own.

What only GPUs have (sleep, CUDA IPC, memory that changes hands) is in tests/gpu/test_colocated.py.
"""

from pathlib import Path

import pytest

from tests.integration.driver import Driver
from tests.integration.test_training_run import check_turns

RUN = ("training.max_staleness=0", "training.num_steps=2", "training.checkpoint_every=2", "demo.warm_start_steps=4")
SAME = ("metrics.jsonl", "samples.jsonl", "ledger.jsonl", "export/model.safetensors")


def run(folder: Path, cache: Path, *more: str) -> Path:
    run_dir = folder / "_".join(["run", *more]).replace("=", "_")
    driver = Driver(folder, "train", "experiment=cpu_smoke", f"run_dir={run_dir}", f"cache_dir={cache}", *RUN, *more)
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []
    return run_dir


@pytest.mark.slow  # the default suite compares them too, across a kill: test_training_run.py
def test_colocated_run_equals_the_disaggregated_one_and_its_engines_are_idle_while_the_learner_works(
    tmp_path: Path, cache: Path
) -> None:
    # Scored before and after in one of them alone: that changes nothing, and saves its time.
    apart = run(tmp_path, cache, "cluster.layout=disaggregated", "evaluation.enabled=false")
    together = run(tmp_path, cache, "cluster.layout=colocated")

    for name in SAME:
        assert (together / name).read_bytes() == (apart / name).read_bytes(), name
    assert not (apart / "turns.jsonl").exists()
    check_turns(together, num_steps=2)
