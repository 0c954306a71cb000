"""data.train that names files of the user's own: the settings they become, and their way into a run."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestration.cli import compose, main
from orchestration.inputs.machine import build_config, locate
from orchestration.inputs.own_data import with_own_data
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from rollout.dataset import write_samples
from rollout.records import Sample
from tests.tiny_models import make_tiny_model
from tests.unit.data.test_own_files import rows, written


def settings(*overrides: str) -> ExperimentConfig:
    return build_settings(compose(overrides))


def own(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    return with_own_data(settings(f"data.train={written(tmp_path / 'set' / 'counts.jsonl', rows(9))}", *overrides))


def test_a_file_becomes_a_source_whose_share_is_held_out(tmp_path: Path) -> None:
    data = own(tmp_path, "data.held_out_share=0.3", "data.recipe.limits.min_side=2").data
    assert (data.train, data.held_out) == (None, None)
    assert data.recipe is not None
    assert list(data.recipe.sources) == ["counts"]
    assert data.recipe.sources["counts"].held_out_share == 0.3
    assert data.recipe.sources["counts"].role == "train"
    assert data.recipe.limits.min_side == 2


def test_held_out_rows_of_their_own(tmp_path: Path) -> None:
    other = written(tmp_path / "other" / "test.csv", rows(4))
    other.write_text("image,problem,answer\n0.png,How many?,3\n1.png,How many?,4\n")
    data = own(tmp_path, f"data.held_out={other}").data
    assert data.recipe is not None
    roles = {name: (source.role, source.held_out_share, source.label) for name, source in data.recipe.sources.items()}
    assert roles == {"counts": ("train", 0.0, ""), "counts_held_out": ("held_out", 0.0, "counts")}
    assert data.recipe.sources["counts_held_out"].options["files"] == ["test.csv"]


def test_what_the_user_says_of_columns_wins(tmp_path: Path) -> None:
    data = own(tmp_path, "data.columns.task={constant: chart}", "data.columns.question=image").data
    assert data.recipe is not None
    mapping = data.recipe.sources["counts"].options["mapping"]
    assert mapping["task"] == {"constant": "chart"}
    assert mapping["question"] == "image"
    with pytest.raises(ConfigError, match=r"data.train=.*counts.jsonl: .*anwser"):
        own(tmp_path, "data.columns.answer=anwser")


def test_what_is_uncertain_is_said_by_every_command_that_reads_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own(tmp_path)
    assert [record.message for record in caplog.records] == []
    (tmp_path / "set" / "boxes.jsonl").write_text('{"image": "0.png", "question": "Where?", "bbox": [1, 2, 30, 40]}\n')
    with_own_data(settings(f"data.train={tmp_path / 'set' / 'boxes.jsonl'}"))
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said[0].startswith("data.train: boxes such as [1, 2, 30, 40] are taken in pixels; data.columns.box_frame=")
    assert said[1].startswith("data.train: boxes are taken as x1, y1, x2, y2; data.columns.box_form=")


def test_settings_as_a_run_keeps_them_give_the_same_rows_again(tmp_path: Path) -> None:
    config = own(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    again = settings("--config", str(tmp_path / "config.json"))
    assert again.data == config.data
    assert with_own_data(again) == again


def test_relative_image_roots_count_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = own(tmp_path, "data.image_roots=[pictures]").data
    assert data.recipe is not None
    assert data.recipe.image_roots == (str(tmp_path / "pictures"),)


def test_a_built_dataset_is_taken_as_it_is(tmp_path: Path) -> None:
    for role in ("train", "held_out"):
        (tmp_path / "built" / role).mkdir(parents=True)
        sample = Sample(sample_id="1", source="s", task="math", question="?", answer="1")
        write_samples(tmp_path / "built" / role / "a.parquet", [sample])
    built = tmp_path / "built"
    named = with_own_data(settings(f"data.train={built}")).data
    assert (named.train, named.held_out) == (str(built / "train"), str(built / "held_out"))
    with pytest.raises(ConfigError, match=r"data\.held_out is not set, and data\.train=.* is built"):
        with_own_data(settings(f"data.train={built / 'train'}"))
    with pytest.raises(ConfigError, match=r"is a built dataset, and data\.train=.* is not"):
        own(tmp_path, f"data.held_out={built}")


def test_a_run_and_its_plan_find_the_rows_of_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "set" / "counts.jsonl", rows(9))
    run = [f"data.train={file}", f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    config = build_config(compose(run))
    assert config.data.recipe is not None
    assert "recipe counts is not built" in locate(config).note


@pytest.mark.parametrize(
    ("file", "name"),
    [("counts.jsonl", "counts"), ("data/train-00000-of-00001.jsonl", "my_set"), ("a b.v2.jsonl", "a_b")],
)
def test_rows_are_counted_under_the_name_of_their_file_or_folder(tmp_path: Path, file: str, name: str) -> None:
    written(tmp_path / "my set" / file, rows(3))
    path = tmp_path / "my set" if "/" in file else tmp_path / "my set" / file
    recipe = with_own_data(settings(f"data.train={path}")).data.recipe
    assert recipe is not None
    assert (recipe.name, list(recipe.sources)) == (name, [name])


def test_look_follows_rules_for_the_source_and_the_limit_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "set" / "counts.jsonl", rows(3))
    model = tmp_path / "model"
    make_tiny_model(model, corpus=["how many of 0?"] * 3)
    given = ["model=qwen2_5_vl", f"model.path={model}", "reward.rules=[{source: counts, function: matching}]"]
    with pytest.raises(SystemExit):
        main(["data", "look", str(file), *given])
    assert "counting, scored by matching" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "look", str(file), *given, "data.recipe.measure.max_prompt_tokens=2"])
    assert "3 of 3 rows as prompt_too_long" in capsys.readouterr().out


def test_look_says_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "set" / "counts.jsonl", rows(9))
    cache = f"cache_dir={tmp_path / 'cache'}"
    with pytest.raises(SystemExit) as ended:
        main(["data", "look", str(file), cache])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    lines = {line[:11].strip(): line[11:].strip() for line in out.splitlines() if line[:11].strip()}
    assert f"counts.jsonl in {tmp_path / 'set'}, read as lines" in " ".join(out.split())
    assert lines["images"] == "56 x 56"
    assert lines["question"] == "How many of 0?"
    assert lines["answer"] == "0"
    assert "counting" in lines["first row"]
    (tmp_path / "set" / "3.png").unlink()
    with pytest.raises(SystemExit):
        main(["data", "look", str(file), cache, "data.columns.task={constant: math}"])
    out = capsys.readouterr().out
    assert "1 of 9 rows as image_missing, such as: 3.png" in out
    assert "math, scored by math" in out
    assert f"mixed-r1 train data.train={file}, with" in out


def looked(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        main(["data", "look", *words])
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())


def test_what_look_says_of_images_elsewhere_can_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    written(tmp_path / "scans" / "other.jsonl", rows(2))
    absolute = [{**row, "image": str(tmp_path / "scans" / row["image"])} for row in rows(2)]
    file = tmp_path / "set" / "counts.jsonl"
    written(file, absolute)
    cache = f"cache_dir={tmp_path / 'cache'}"
    said = looked(capsys, str(file), cache)
    assert "2 of 2 rows as path_outside_root" in said
    setting = next(word for word in said.split() if word.startswith("data.recipe.image_roots="))
    assert setting == f"data.recipe.image_roots=[{tmp_path / 'scans'}]"
    assert "left out" not in looked(capsys, str(file), cache, setting)
    gone = written(file, [{**row, "image": f"/gone/scans/{row['image']}"} for row in rows(2)])
    assert "leads to /gone/scans, and there is no such folder" in looked(capsys, str(gone), cache)
    by_name = 'data.columns.images={format: "../scans/{image:name}"}'
    assert "left out" not in looked(capsys, str(gone), cache, by_name, setting)


def test_look_says_where_no_row_has_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "set" / "counts.jsonl", [{"problem": row["problem"], "answer": "3"} for row in rows(3)])
    assert "no row has an image: all are asked as text alone" in looked(capsys, str(file), f"cache_dir={tmp_path}")
