import json
from pathlib import Path

import pytest

from orchestration.cluster.layout import Layout, PlacedActor
from orchestration.cluster.machines import Machine
from orchestration.plan.command import WIDTH, placement_rows, plan_json, plan_text
from orchestration.plan.plan import plan_run
from tests.unit.plan.runs import dataset, gpu_settings, row

GOLDEN = Path(__file__).parents[2] / "golden" / "planning"


def drawn_case() -> list[str]:
    """A small dataset of three tasks, one row of which is too long; nothing here depends on the machine."""
    rows = [
        row(i, prompt_tokens=120 + 37 * i, image_tokens=100 + 30 * i, task=("chart", "iou", "open")[i % 3])
        for i in range(150)
    ]
    path = dataset(Path("rows.parquet"), [*rows, row(150, prompt_tokens=9001)])
    return [f"data.train={path}", f"data.held_out={path}"]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("fits.txt", []),
        ("does_not_fit.txt", ["learner.num_ranks=2", "rollout.engines=3", "training.groups_per_step=127"]),
    ],
)
def test_a_printed_plan_is_the_golden_one(
    name: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of counting or wording changes the golden text: read the difference before you keep it."""
    monkeypatch.chdir(tmp_path)  # so that the folder's name, which is told, is always as long

    text = plan_text(plan_run(gpu_settings(*drawn_case(), *overrides)))

    assert text == (GOLDEN / name).read_text()


def test_lines_are_not_wider_than_a_screen() -> None:
    text = plan_text(plan_run(gpu_settings("learner.num_ranks=2", "rollout.engines=99")))

    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(text.splitlines()) < 80


def test_json_holds_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_run(gpu_settings(*drawn_case()))

    values = json.loads(json.dumps(plan_json(plan)))

    assert values["fits"] is True
    assert values["model"]["parameters"]["total"] == 8292166656
    assert values["batches"]["completions"] == 1024
    assert [use["total_bytes"] for use in values["memory"]["devices"]] == [
        use.total_bytes for use in plan.memory.devices
    ]
    assert values["memory"]["disk_bytes"] == plan.memory.disk_bytes
    assert values["prompts"]["outliers"][0]["reason"] == "prompt_too_long"
    assert sum(values["prompts"]["prompts"]["counts"]) == 150
    assert {seat["role"] for seat in values["layout"]["actors"]} == {"learner", "engine", "reward"}
    assert values["seconds"]["step_s"] == plan.seconds.step_s  # type: ignore[union-attr]


def machine(name: str, gpus: int) -> Machine:
    return Machine(name=name, gpus=gpus, gpu="h100_80gb" if gpus else None, cpus=8, memory_bytes=1 << 36)


def test_machines_with_one_pattern_are_told_together() -> None:
    seats = [
        PlacedActor(role="learner", index=2 * node + rank, machine=node, gpus=(rank,))
        for node in range(3)
        for rank in range(2)
    ]
    layout = Layout(
        machines=(*(machine(f"node {i}", 2) for i in range(3)), machine("node 3", 0)),
        actors=(*seats, PlacedActor(role="reward", index=0, machine=3, gpus=())),
    )

    rows = list(placement_rows(layout, 1))

    assert rows == [
        ("node 0-2", "2 GPUs of kind h100_80gb, 8 cores, 64 GiB of memory each"),
        ("  GPU 0-1", "learner ranks 0-5, 2 per machine"),
        ("node 3", "8 cores, 64 GiB of memory"),
        ("  cores", "reward actor 0"),
    ]
