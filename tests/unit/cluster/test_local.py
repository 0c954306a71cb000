"""A run without a cluster always finds a core for each of its actors here."""

from pathlib import Path

from orchestration.cli import compose
from orchestration.cluster.layout import lay_out
from orchestration.cluster.needs import needs_of, this_machine
from orchestration.inputs.machine import build_config


def test_more_actors_than_cores_share_them(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=300", f"run_dir={tmp_path}"]))
    machine = this_machine(needs_of(config))
    assert machine.cpus >= 302
    assert machine.memory_bytes > 1 << 28
    assert len(lay_out(config, [machine]).of("engine")) == 300
