"""One change of a run that fits, and what the plan then says."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestration.cluster.machines import this_machine
from orchestration.plan.command import headline
from orchestration.plan.plan import plan_run
from orchestration.plan.records import Finding
from tests.unit.plan.runs import dataset, gpu_settings, row, settings

NODES = "cluster.nodes=[{{count: {0}, gpus: {1}, gpu: h100_80gb, cpus: 96, memory_gib: {2}}}]"


def findings(*overrides: str) -> list[Finding]:
    return list(plan_run(gpu_settings(*overrides)).findings)


def test_the_run_that_is_changed_below_fits_without_a_word() -> None:
    plan = plan_run(gpu_settings())

    assert plan.findings == ()
    assert plan.fits


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ("training.groups_per_step=130", "training.groups_per_step", "does not divide by learner.num_ranks=4"),
        ("training.run_ahead=9", "training.run_ahead", "or null for"),
        ("rollout.engines=5", "rollout.engines", "1 of 5 engines"),
        ("rollout.engine.tensor_parallel_size=16", "rollout.engine.tensor_parallel_size", "use 8 or less"),
        ("learner.num_ranks=2", "learner.micro_batch_tokens", "too much"),
        ("rollout.engine.gpu_memory_utilization=0.25", "rollout.engine", "would fit"),
        ("rollout.engine.max_model_len=200000", "rollout.engine.max_model_len", "supports 128,000"),
        ("algorithm.num_minibatches=200", "algorithm.num_minibatches", "use at most 128"),
        ("training.keep_best=true", "training.keep_best", "needs scores of every checkpoint"),
        (NODES.format(1, 8, 40.0), "cluster.nodes", "too much"),
    ],
)
def test_an_error_names_its_key_and_what_to_do(change: str, key: str, words: str) -> None:
    plan = plan_run(gpu_settings(change))

    errors = [finding for finding in plan.findings if finding.severity == "error"]
    assert any(error.key.startswith(key) and words in error.message for error in errors), errors
    assert not plan.fits


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        (["cluster.nodes=[]"], "cluster.nodes", "needs 8 GPUs and 16 cores"),
        (["cluster.nodes=[{count: 1, gpus: 8, gpu: b200, cpus: 96, memory_gib: 1024.0}]"], "cluster.nodes", "b200"),
        (["algorithm.num_minibatches=3"], "algorithm.num_minibatches", "multiple of 12"),
        (["learner.micro_batch_tokens=4096"], "learner.micro_batch_tokens", "8,191"),
        (["training.max_staleness=0", "training.groups_per_step=4", "rollout.engines=8", NODES.format(2, 8, 1024.0)],
         "rollout.engines", "some engines are idle"),
        ([NODES.format(2, 4, 1024.0), "learner.num_ranks=5", "rollout.engines=2", "training.groups_per_step=125"],
         "learner.num_ranks", "split 4, 1 over the machines"),
        ([NODES.format(2, 4, 1024.0), "run_dir=/home/me/run"], "run_dir", "use shared storage"),
        ([NODES.format(2, 4, 1024.0), "training.checkpoint_dir=/tmp/kept"], "training.checkpoint_dir", "storage"),
        (["cluster.address=null", "cluster.object_store_bytes=80000000", "training.groups_per_step=1024"],
         "cluster.object_store_bytes", "disk"),
        (["rollout.engine.max_num_seqs=4096"], "rollout.engine.max_num_seqs", "tokens of cache"),
        (["evaluation.sets.birds.path=/nowhere/birds"], "evaluation.sets.birds.path", "/nowhere/birds does not exist"),
    ],
)  # fmt: skip
def test_a_warning_lets_the_run_go(changes: list[str], key: str, words: str) -> None:
    plan = plan_run(gpu_settings(*changes))

    assert plan.fits, plan.findings
    assert any(finding.key == key and words in finding.message for finding in plan.findings), plan.findings


def test_two_mistakes_are_told_at_once() -> None:
    keys = {f.key for f in findings("training.groups_per_step=130", "training.keep_best=true", "rollout.engines=9")}

    assert {"training.groups_per_step", "training.keep_best", "rollout.engines"} <= keys


@pytest.mark.parametrize(
    ("model", "width", "words"),
    [
        ("qwen2_5_vl_7b", 8, "28 attention heads"),
        ("qwen2_5_vl_7b", 3, "4 key-value heads"),
        ("internvl3_1b", 4, "14 attention heads"),
    ],
)
def test_an_engine_that_does_not_divide_the_model_is_an_error(model: str, width: int, words: str) -> None:
    found = findings(f"model={model}", f"rollout.engine.tensor_parallel_size={width}", "rollout.engines=1",
                     "learner.num_ranks=1")  # fmt: skip

    error = next(finding for finding in found if finding.key == "rollout.engine.tensor_parallel_size")
    assert words in error.message


def test_an_engine_may_have_more_workers_than_key_value_heads() -> None:
    found = findings("model=internvl3_8b", "rollout.engine.tensor_parallel_size=4", "rollout.engines=1")

    assert not [finding for finding in found if finding.key == "rollout.engine.tensor_parallel_size"]


def test_remedies_are_counted_and_stand_on_the_same_machines() -> None:
    [error] = [finding for finding in findings("learner.num_ranks=2") if finding.severity == "error"]

    assert error.message.endswith("would fit")
    changes = error.message.split("; ")[-1].removeprefix("each of ").removesuffix(" would fit").split(", ")
    assert len(changes) > 1
    for change in changes:
        assert plan_run(gpu_settings("learner.num_ranks=2", change)).fits, change


def with_rows(tmp_path: Path, rows: list[dict[str, object]], *overrides: str) -> list[Finding]:
    path = dataset(tmp_path / "rows.parquet", rows)
    return findings(f"data.train={path}", f"data.held_out={path}", *overrides)


FITTING = [row(number) for number in range(200)]


def test_the_best_by_a_function_that_scores_no_row_of_its_set_is_refused(tmp_path: Path) -> None:
    charts = dataset(tmp_path / "charts.parquet", FITTING[:2])
    given = (f"+evaluation.sets.charts={{path: {charts}, every_steps: 5}}", "training.checkpoint_every=10")
    for function, num_errors in (("chart", 0), ("mean", 0), ("grounding", 1)):
        best = f"training.keep_best=held_out/set/charts/{function}/greedy"
        errors = [one.message for one in findings(*given, best) if one.key == "training.keep_best"]
        assert len(errors) == num_errors, errors
    assert errors[0].endswith(
        f"grounding scores no row of evaluation.sets.charts.path ({charts}); its rows are scored by chart"
    )


def test_rows_that_fit_are_not_spoken_of(tmp_path: Path) -> None:
    assert with_rows(tmp_path, FITTING) == []


@pytest.mark.parametrize(
    ("odd", "key", "words"),
    [
        (row(900, prompt_tokens=9000), "rollout.engine.max_model_len", "prompt of rollout.engine.max_model_len"),
        (row(900, prompt_tokens=7000), "rollout.engine.max_model_len", "long completions are truncated"),
        (row(900, sizes=((50, 50),) * 5), "rollout.engine.max_images_per_prompt", "more images"),
        (row(900, question="what is <image>?"), "data.train", "placeholder"),
        (row(900, prompt_tokens=None), "model.path", "not measured"),
    ],
)
def test_a_row_that_does_not_fit_is_a_warning(odd: dict[str, object], key: str, words: str, tmp_path: Path) -> None:
    [finding] = with_rows(tmp_path, [*FITTING, odd])

    assert (finding.severity, finding.key) == ("warning", key)
    assert words in finding.message


def test_more_refused_rows_than_a_run_bears_are_an_error(tmp_path: Path) -> None:
    [finding] = with_rows(tmp_path, FITTING[:150] + [row(900 + i, prompt_tokens=9000) for i in range(20)])

    assert finding.severity == "error"
    assert "11.8% of all" in finding.message
    assert "training.max_drop_frac=0.05" in finding.message


def test_rows_without_a_reward_are_an_error(tmp_path: Path) -> None:
    [finding] = with_rows(tmp_path, [*FITTING, row(900, task="music", source="jamendo")])

    assert (finding.severity, finding.key) == ("error", "reward.routes")
    assert "music of jamendo" in finding.message


def test_fewer_rows_than_a_step_takes_are_told(tmp_path: Path) -> None:
    [finding] = with_rows(tmp_path, FITTING[:100])

    assert (finding.severity, finding.key) == ("warning", "training.groups_per_step")


def test_the_demo_fits_wherever_it_is_planned() -> None:
    assert plan_run(settings("run_dir=/nowhere", "cache_dir=/nowhere")).fits


def test_a_stream_that_does_not_fit_the_dataset_is_an_error(tmp_path: Path) -> None:
    [finding] = with_rows(tmp_path, FITTING, "data.stream.tasks=[iou]")

    assert (finding.severity, finding.key) == ("error", "data.stream.tasks")


@pytest.mark.parametrize("chosen", [[], ["experiment=cpu_quick"], ["experiment=cpu_smoke"]])
def test_a_small_run_is_not_refused_on_a_small_machine(
    chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory(3 << 30, monkeypatch)

    plan = plan_run(settings(*chosen, f"run_dir={tmp_path}", f"cache_dir={tmp_path}"))

    assert [(finding.severity, finding.key) for finding in plan.findings] == [("warning", "cluster.nodes")]


def test_a_model_that_this_machine_cannot_hold_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(24 << 30, monkeypatch)
    config = settings("model=internvl3_2b", f"run_dir={tmp_path}", f"cache_dir={tmp_path}")

    assert "host memory" in next(
        finding.message for finding in plan_run(config).findings if finding.severity == "error"
    )


def with_memory(num_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for a machine with so much memory."""
    monkeypatch.setattr(
        "orchestration.plan.plan.this_machine", lambda needs: replace(this_machine(needs), memory_bytes=num_bytes)
    )


def test_references_that_nothing_earns_are_named_by_source(tmp_path: Path) -> None:
    odd = [
        {**row(900, source="roots", task="math"), "answer": r"a_{n+1}"},
        {**row(901, source="roots", task="math"), "answer": "pi"},
        {**row(902, source="boxes", task="iou"), "answer": "[9, 9, 3, 3]"},
        {**row(903, source="sets", task="match_mcq"), "answer": "E", "options": ["cat", "dog"]},
    ]
    told = {finding.message.partition(", such as")[0] for finding in with_rows(tmp_path, [*FITTING, *odd])}

    assert told == {
        "source 'roots', task math: 1 of 2 references tried are refused by their own reward when written plainly",
        "source 'boxes', task iou: 1 of 1 references tried cannot be graded against",
        "source 'sets', task match_mcq: 1 of 1 references tried cannot be graded against",
    }


def test_of_a_large_source_some_references_are_tried_evenly(tmp_path: Path) -> None:
    odd = [{**row(number, task="math"), "answer": r"a_{n+1}"} for number in range(150, 200)]
    fitting = [{**one, "task": "math"} for one in FITTING[:150]]
    [finding] = with_rows(tmp_path, [*fitting, *odd])

    assert (finding.severity, finding.key) == ("warning", "data.train")
    assert "12 of 50 references tried are refused by their own reward when written plainly, such as" in finding.message


def test_a_folder_with_a_run_of_other_settings_is_named_as_one_that_a_start_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(asdict(settings(f"run_dir={folder}"))))

    same = plan_run(settings(f"run_dir={folder}", "plan.enforce=false"))
    other = plan_run(settings(f"run_dir={folder}", "training.groups_per_step=16"))
    accepted = plan_run(settings(f"run_dir={folder}", "training.groups_per_step=16", "allow_config_change=true"))

    assert not same.refusal
    assert not accepted.refusal
    assert "training.groups_per_step" in other.refusal
    assert other.fits
    assert any(finding.key == "run_dir" and "another run_dir" in finding.message for finding in other.findings)
    assert "fits, but run_dir holds a run of other settings" in headline(other)


def test_a_damaged_run_folder_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")

    assert "not whole JSON" in plan_run(settings(f"run_dir={tmp_path}")).refusal


def test_a_reward_function_that_no_route_names_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def score(request): return 1")
    own = f"reward.functions.mine={tmp_path}/mine.py:score"
    assert [finding.key for finding in findings(own)] == ["reward.functions.mine"]
    assert findings(own, "reward.routes.chart={chart: 0.5, mine: 0.5}") == []


@pytest.mark.parametrize(
    ("source", "severity", "words"),
    [
        ("def scores(request): return 1", "error", "has no score; did you mean scores?"),
        ("def score(request): return request.wrong", "error", "mine has no value for 4 of 4 references tried of task"),
        ("def score(request): return 2 if request.question == 'How many?' else 1", "error", "returned 2"),
        ("N = []\ndef score(request): N.append(1); return len(N) % 2 / 2", None, ""),
        ("N = []\ndef score(request): N.append(1); return len(N)", "warning", "no value for 3 of 4 references tried"),
    ],
)
def test_a_reward_function_of_ones_own_is_tried(source: str, severity: str | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    rows = dataset(tmp_path / "rows.parquet", [row(number) for number in range(4)])
    plan = plan_run(
        gpu_settings(
            f"data.train={rows}",
            f"data.held_out={rows}",
            f"reward.functions.mine={tmp_path}/mine.py:score",
            "reward.routes.chart=mine",
        )
    )
    found = [finding for finding in plan.findings if finding.key.startswith("reward.functions")]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(words in finding.message for finding in found)
    assert [route.function for route in plan.routing.routes] == ["mine"]
