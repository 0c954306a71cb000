"""Where actors ask to stand, before any cluster is there."""

from pathlib import Path

from orchestration.cli import compose
from orchestration.cluster import plan
from orchestration.config.experiment import build_config


def test_engines_and_reward_actors_go_over_all_nodes_and_ranks_beside_the_driver(tmp_path: Path) -> None:
    settings = ["rollout.engines=2", "cluster.reward_pool.num_actors=3", "learner.num_ranks=2", f"run_dir={tmp_path}"]
    planned = plan(build_config(compose(settings)), cores=())
    assert planned.num_cpus == 7
    assert all(rank.beside_driver for rank in planned.learner_ranks)
    spread = [placement.actor_options() for placement in (*planned.engines, *planned.rewards)]
    assert {options["scheduling_strategy"] for options in spread} == {"SPREAD"}


def test_ray_restarts_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    engine = plan(build_config(compose([f"run_dir={tmp_path}"])), cores=()).engines[0].actor_options()
    assert (engine["max_restarts"], engine["max_task_retries"]) == (0, 0)
