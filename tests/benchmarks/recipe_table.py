"""The table of recipes in conf/README.md, as `mixed-r1 plan` reckons it today.

    python -m tests.benchmarks.recipe_table

Nothing is measured: copy the lines into conf/README.md when a recipe or the arithmetic of the plan has changed.
"""

import re
from pathlib import Path

import conf
from orchestration.cli import compose
from orchestration.plan.plan import RunPlan, plan_run
from orchestration.settings.experiment import ExperimentConfig, build_settings

EXPERIMENTS = Path(str(conf.__file__)).parent / "experiment"
MACHINES = ("1_gpu", "8_gpus", "2_nodes", "4_nodes", "16_nodes")
SIZED = re.compile(r"(.+?)_(0_\d+|\d+)b(?:_a\d+b)?")
"""Family and billions of parameters, 0_8 for 0.8; of a mixture those of a token behind them."""
GIB = 1 << 30


def recipe_names() -> list[str]:
    """Return MODEL/MACHINES of every recipe, small models first and small machines first."""
    found = [path.relative_to(EXPERIMENTS).with_suffix("") for path in EXPERIMENTS.glob("*/[!_]*.yaml")]

    def size(name: Path) -> tuple[str, float, int]:
        found = SIZED.fullmatch(name.parent.name)
        assert found is not None, name
        return found[1], float(found[2].replace("_", ".")), MACHINES.index(name.name)

    return [str(name) for name in sorted(found, key=size)]


def row(name: str, config: ExperimentConfig, plan: RunPlan) -> list[str]:
    """Return the cells of one line: placement, what is trained, what is left of a learner's GPU, a step's time."""
    is_colocated = config.cluster.layout == "colocated"
    phases = plan.memory.devices if is_colocated else plan.memory.devices[:1]
    free = min((use.limit_bytes or 0) - use.total_bytes for use in phases) / GIB
    assert plan.seconds is not None
    return [
        f"`{name}`",
        "in turns" if is_colocated else "apart",
        str(config.learner.num_ranks),
        f"{config.rollout.engines} x {config.rollout.engine.tensor_parallel_size}",
        "adapters" if config.learner.lora else "all weights",
        str(config.training.groups_per_step),
        f"{free:.0f}",
        f"{plan.seconds.step_s:.0f}",
    ]


HEAD = ["recipe", "engines and learner", "ranks", "engines x GPUs", "trains", "groups a step", "free, GiB", "step, s"]


def line(cells: list[str]) -> str:
    """Return one line of Markdown."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    print(line(HEAD))
    print("|---" * len(HEAD) + "|")
    for name in recipe_names():
        config = build_settings(compose([f"experiment={name}"]))
        print(line(row(name, config, plan_run(config))))


if __name__ == "__main__":
    main()
