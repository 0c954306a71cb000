"""Rows that are lost: the table of a build, what makes it fail, what allows it, and what a plan repeats."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli import EXIT_LOSS, main
from orchestration.data.losses import check_losses, find_losses, read_manifest, source_table
from orchestration.data.plan import plan_build
from orchestration.data.read import read_part
from orchestration.inputs.machine import build_config, locate
from orchestration.plan.plan import plan_run
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError, LossError
from orchestration.settings.experiment import settings_errors
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build, plan

MAPPING = "{question: q, answer: 'a?', task: {constant: match_text}}"
WORDS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "orange", "yellow")
ROWS = [{"q": f"Which colour does the thing called {word} have?", "a": word} for word in WORDS]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "cut": lines(ROWS[:4]) + '{"q": "Which col',
    "few": lines([{"q": f"Is {word} dark?", "a": word} for word in WORDS[:7]] + [{"q": "Is it?"}] * 3),
    "twice": lines(ROWS[:4]),
    "bench": "[]",
    "good": lines([{"q": f"What is like {word}?", "a": word} for word in WORDS[:9]] + [{"q": "What is?"}]),
}
"""By source: its file."""
SOURCES = [
    f"+data.recipe.sources.{name}={{adapter: jsonl, path: {name}, role: {'guard' if name == 'bench' else 'train'}, "
    f"options: {{files: [rows.json], mapping: {MAPPING}}}}}"
    for name in FILES
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("losses")
    for name, text in FILES.items():
        (root / "raw" / name).mkdir(parents=True)
        (root / "raw" / name / "rows.json").write_text(text, encoding="utf-8")
    make_tiny_model(root / "model", corpus=["which colour is it?"] * 3)
    build(plan(root / "model", root, *settings(root)), is_tried=False)
    return root


def settings(root: Path) -> list[str]:
    return [
        f"model.path={root / 'model'}",
        f"data.recipe.raw={root / 'raw'}",
        "rollout.engine.max_model_len=512",
        *SOURCES,
    ]


def overrides(root: Path, *more: str) -> list[str]:
    """What `plan` composes, for a command."""
    return [
        f"run_dir={root / 'run'}",
        f"cache_dir={root / 'cache'}",
        f"data.recipe.out={root / 'out'}",
        "data.recipe.chunk_rows=16",
        "data.recipe.sources.demo.options.num_rows=48",
        "data.recipe.sources.demo_held_out.options.num_rows=16",
        "data.recipe.shards.rows_per_shard=20",
        *settings(root),
        *more,
    ]


def test_a_source_that_is_broken_empty_used_up_or_mostly_refused_is_named_with_its_reason(root: Path) -> None:
    manifest = read_manifest(root / "out")
    assert manifest is not None
    found = {loss.source: loss.message for loss in find_losses(manifest)}
    assert set(found) == {"cut", "few", "twice", "bench"}
    assert found["cut"].startswith("cut (train): a file is broken, rows.json/5: rows.json line 5 is no JSON: ")
    assert found["few"].startswith(
        "few (train): 3 of 10 rows (30%) cannot be used, most as answer_empty at validate (no reference answer), such "
    )
    assert found["twice"].startswith("twice (train): none of its 4 rows is left, most went as duplicate at deduplicate")
    assert found["bench"].startswith("bench (guard): a file is broken, rows.json: rows.json has no entries in ")
    assert [loss.source for loss in find_losses(manifest, ("cut", "twice", "few"))] == ["bench"]
    assert find_losses(manifest, ("*",)) == []
    check_losses(root / "out", ("*",))
    with pytest.raises(LossError, match=r"accept what they lost: 'data.recipe.allow_loss=\[cut, bench, few, twice\]'$"):
        check_losses(root / "out", ("cut",))


def test_the_table_has_a_line_for_each_source_with_an_example_of_the_main_reason(root: Path) -> None:
    manifest = read_manifest(root / "out")
    assert manifest is not None
    table = {line.split()[0]: line.split() for line in source_table(manifest)}
    assert table["source"] == ["source", "role", "read", "kept", "left", "out"]
    assert set(table) == {"source", "demo", "demo_held_out", *FILES}
    assert table["few"][1:6] == ["train", "10", "7", "3", "answer_empty;"]
    assert table["good"][1:4] == ["train", "10", "9"]
    assert table["bench"][1:6] == ["guard", "1", "0", "1", "broken_file;"]


def test_a_source_whose_file_has_no_row_at_all_is_said_to_guard_nothing() -> None:
    entry = {"role": "guard", "read": 0, "kept": 0, "refused": []}
    (loss,) = find_losses({"by_source": {"pope": entry}})
    assert loss.message == "pope (guard): no row was read, so it guards nothing; check its path, split and files"


@pytest.mark.parametrize(
    ("stage", "reason", "is_loss"),
    [
        ("measure", "prompt_too_long", True),
        ("normalise", "reference_unusable", True),
        ("filter", "filter_failed/mine", True),
        ("filter", "left_out/mine", False),
        ("deduplicate", "leaked_image", False),
        ("select", "over_quota", False),
        ("read", "text_only", False),
    ],
)
def test_only_rows_that_cannot_be_used_count_as_lost(stage: str, reason: str, is_loss: bool) -> None:
    one = {"stage": stage, "reason": reason, "meaning": "m", "count": 3, "example": "7: x"}
    for count, expected in ((3, is_loss), (2, False)):  # of 12 and of 11 rows; a fifth and a little is too much
        entry = {"role": "train", "read": 9 + count, "kept": 9, "refused": [{**one, "count": count}]}
        assert bool(find_losses({"by_source": {"own": entry}})) == expected


def test_the_command_prints_the_table_and_ends_with_its_own_code_until_the_loss_is_allowed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "build", *overrides(root)])
    said = capsys.readouterr()
    assert ended.value.code == EXIT_LOSS == 3
    assert "few            train" in said.out
    assert "bench (guard): a file is broken" in said.err
    assert "'data.recipe.allow_loss=[bench, cut, few, twice]'" in said.err

    with pytest.raises(SystemExit) as ended:
        main(["data", "build", *overrides(root, "data.recipe.allow_loss=[bench, cut, few, twice]")])
    said = capsys.readouterr()
    assert ended.value.code == 0, "the dataset is complete, so nothing is built again"
    assert str(root / "out" / "manifest.json") in said.out


def test_what_is_allowed_must_be_a_source_and_does_not_change_the_dataset(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.recipe.sources.bensh is not a setting; did you mean .*bench"):
        plan(root / "model", root, *settings(root), "data.recipe.allow_loss=[bensh]")
    one = plan(root / "model", root, *settings(root))
    assert plan(root / "model", root, *settings(root), "data.recipe.allow_loss=['*']").key == one.key


def test_a_plan_repeats_the_losses_of_a_recipe_and_of_a_dataset(root: Path) -> None:
    config = build_config(compose(overrides(root)))
    found = [finding for finding in plan_run(config, locate(config)).findings if "allow_loss" in finding.key]
    assert {(finding.severity, finding.message.split()[0]) for finding in found} == {
        ("error", name) for name in ("cut", "few", "twice", "bench")
    }
    allowed = build_config(compose(overrides(root, "data.recipe.allow_loss=['*']")))
    assert not [one for one in plan_run(allowed, locate(allowed)).findings if "allow_loss" in one.key]

    given = [f"data.train={root / 'out' / 'train'}", f"data.held_out={root / 'out' / 'held_out'}"]
    config = build_config(compose([*overrides(root)[:2], f"model.path={root / 'model'}", "data=parquet", *given]))
    lacking = [one for one in plan_run(config, locate(config)).findings if "lacks rows of" in one.message]
    assert {(one.severity, one.key) for one in lacking} == {("warning", "data.train")}
    assert len(lacking) == 4


def test_a_broken_file_is_not_left_out_by_chance(root: Path) -> None:
    config = build_config(compose(overrides(root, "+data.recipe.sources.cut.max_rows=1")))
    (source,) = [one for one in plan_build(config, root / "model").plans if one.name == "cut"]
    (task,) = source.tasks
    (folder,) = read_part(replace(task, cutoff=0))
    assert [json.loads(line)["reason"] for line in (folder / "rejected.jsonl").read_text().splitlines()] == [
        "broken_file"
    ]


def test_a_recipe_without_held_out_rows_is_refused_by_plan_and_train_alike(root: Path) -> None:
    values = compose(overrides(root, "~data.recipe.sources.demo_held_out"))
    with pytest.raises(ConfigError, match="has no source of role held_out, and a run is scored on such rows"):
        build_config(values)
    config = build_config(values, is_for_training=False)  # it can be built all the same
    assert any("role held_out" in str(error) for error in settings_errors(config))
    assert any("role held_out" in one.message and one.severity == "error" for one in plan_run(config).findings)
