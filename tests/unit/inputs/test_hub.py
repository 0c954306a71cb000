"""Names of a hub become folders of its cache, and a run stays with the revision that it began with."""

import dataclasses
import json
from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.data.sources.splits import card_splits, files_of_split, image_root, named_split
from orchestration.inputs.hub import HubName, dataset_patterns, hub_name, with_hub_folders
from orchestration.inputs.machine import locate
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.storage.run_folder import RunFolder, settle_config
from orchestration.submit.job import check_job

OLD, NEW = "0" * 39 + "a", "0" * 39 + "b"
VALUES = json.dumps(compose([]))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache laid out as the library's, without network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def cached(cache: Path, kind: str, name: str, revision: str, *files: str) -> Path:
    folder = cache / f"{kind}s--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for file in files:
        path = folder / "snapshots" / revision / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder / "snapshots" / revision


def settings(root: Path, **paths: str) -> ExperimentConfig:
    values = json.loads(VALUES) | {"run_dir": str(root / "run")}
    values["model"]["path"] = paths.get("model")
    values["data"] |= {"train": paths.get("train"), "held_out": paths.get("held_out")}
    return build_settings(values)


def test_a_name_is_told_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "here" / "model").mkdir(parents=True)
    for path in ("/a/b", "./a/b", "~/a/b", "../a", "here/model", "runs/typo", "a.parquet", "???", "s3://a/b", None):
        assert hub_name(path) is None, path
    assert hub_name("Org/Model-3B") == HubName(repository="Org/Model-3B", inside="", revision=None)
    assert hub_name("org/set/a/train@v1.0") == HubName(repository="org/set", inside="a/train", revision="v1.0")


def test_model_and_data_are_found_in_the_cache(tmp_path: Path, cache: Path) -> None:
    model = cached(cache, "model", "org/model", OLD, "config.json")
    data = cached(cache, "dataset", "org/set", NEW, "train/0.parquet", "held_out/0.parquet", "other/rows.parquet")
    found = with_hub_folders(settings(tmp_path, model="org/model", train="org/set", held_out="org/set/other"))
    assert found.model.path == str(model)
    assert (found.data.train, found.data.held_out) == (str(data / "train"), str(data / "other"))
    with pytest.raises(ConfigError, match=r"data\.held_out=org/set/absent: org/set holds no absent"):
        with_hub_folders(settings(tmp_path, model="org/model", train="org/set", held_out="org/set/absent"))


def test_an_adapter_to_go_on_from_is_found_in_the_cache(tmp_path: Path, cache: Path) -> None:
    folder = cached(cache, "model", "org/adapter", OLD, "adapter_config.json", "adapter_model.safetensors")
    chosen = ["+learner/lora=default", "learner.lora.start=org/adapter", f"run_dir={tmp_path / 'run'}"]
    lora = with_hub_folders(build_settings(compose(chosen))).learner.lora
    assert lora is not None
    assert lora.start == str(folder)


def test_a_run_stays_with_its_revision_and_another_one_can_be_named(tmp_path: Path, cache: Path) -> None:
    old = cached(cache, "model", "org/model", OLD, "config.json")
    config = settings(tmp_path, model="org/model")
    settle_config(RunFolder(config.run_path), with_hub_folders(config))
    new = cached(cache, "model", "org/model", NEW, "config.json")
    assert with_hub_folders(config).model.path == str(old)
    other = dataclasses.replace(config, run_dir=str(tmp_path / "another"))
    assert with_hub_folders(other).model.path == str(new)
    assert with_hub_folders(settings(tmp_path, model=f"org/model@{NEW}")).model.path == str(new)


def test_what_is_not_there_is_refused_with_what_was_tried_and_the_way_by_hand(tmp_path: Path, cache: Path) -> None:
    said = (
        rf"model\.path=org/absent is no path here, and the Hugging Face Hub gave no model org/absent at revision main "
        rf"\(.*\); the cache {cache} has none either\. .*hf download org/absent --repo-type model --local-dir FOLDER"
    )
    config = settings(tmp_path, model="org/absent")
    with pytest.raises(ConfigError, match=said) as caught:
        with_hub_folders(config)
    assert "\n" not in str(caught.value)
    assert with_hub_folders(config, is_online=False) == config  # a plan goes by the stated sizes


def test_paths_are_left_alone_and_a_job_may_name_models_of_the_hub(tmp_path: Path) -> None:
    config = settings(tmp_path, model="/models/own", train="/data/a", held_out="/data/b")
    assert with_hub_folders(config) is config
    values = compose(["cluster=ray", "run_dir=/shared/run", "cache_dir=/shared/cache", "model.path=org/model"])
    check_job(build_settings(values))


def test_a_plan_tells_a_name_on_the_hub_from_a_path_that_is_not_there() -> None:
    files = ["data=parquet", "data.train=ORG/NAME", "data.held_out=/not/there"]
    assert locate(build_settings(compose(files))).note == (
        "data.held_out=/not/there is not there. mixed-r1 data build makes such files. data.train=ORG/NAME: no path "
        "here; as a name on the Hugging Face Hub, train downloads it"
    )


def test_a_split_is_named_behind_all_else() -> None:
    assert hub_name("org/set:test") == HubName(repository="org/set", inside="", revision=None, split="test")
    whole = HubName(repository="org/set", inside="a/b", revision="refs/pr/1", split="val")
    assert hub_name("org/set/a/b@refs/pr/1:val") == whole


@pytest.mark.parametrize(
    "value", ["org/set:a/b", "org/set:sub#1000", "org/set#1000", "org/set:sub@test", "hf::org/set:sub", "org/set@a@b"]
)
def test_names_as_other_trainers_write_them_are_refused_with_ours(value: str, tmp_path: Path) -> None:
    said = (
        rf"data\.train={value} is no path here, .* names are ORG/NAME\[/FOLDER\]\[@REVISION\]\[:SPLIT\]\. A subset is"
    )
    with pytest.raises(ConfigError, match=said):
        with_hub_folders(settings(tmp_path, model="/models/own", train=value, held_out="/data/b"))


def test_a_model_has_no_split(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.path=org/model:main .* names are ORG/NAME\[/FOLDER\]\[@REVISION\]\. "
    ):
        with_hub_folders(settings(tmp_path, model="org/model:main"))


def test_a_split_becomes_its_file_its_folder_or_a_folder_with_the_split(tmp_path: Path, cache: Path) -> None:
    shards = [f"data/{split}-0000{shard}-of-00002.parquet" for split in ("train", "val") for shard in (0, 1)]
    data = cached(cache, "dataset", "org/set", OLD, *shards, "data/test-00000-of-00001.parquet", "lines/test/own.jsonl")

    def train(value: str) -> str:
        found = with_hub_folders(settings(tmp_path, model="/models/own", train=value, held_out="/data/b")).data.train
        assert found is not None
        return found

    assert train("org/set/data:test") == str(data / "data" / "test-00000-of-00001.parquet")
    assert train("org/set/lines:test") == str(data / "lines" / "test" / "own.jsonl")
    value = train(f"org/set@{OLD}:val")
    assert value == f"{data}:val"
    folder, split = named_split(value)
    assert [path.name for path in files_of_split(Path(folder), split)] == [Path(name).name for name in shards[2:]]
    assert image_root(Path(folder)) == cache / "datasets--org--set"
    with pytest.raises(
        ConfigError, match=r"data\.train=org/set:test: .* several times, in data/\*.parquet, lines/test/"
    ):
        train("org/set:test")
    with pytest.raises(ConfigError, match=r"data\.train=org/set:dev: .* holds no split dev; there are .*train, val"):
        train("org/set:dev")


def test_a_run_stays_with_the_revision_of_its_split(tmp_path: Path, cache: Path) -> None:
    shards = [f"{split}-{shard}-of-2.parquet" for split in ("train", "test") for shard in (0, 1)]
    old = cached(cache, "dataset", "org/set", OLD, *shards)
    config = settings(tmp_path, model="/models/own", train="org/set:train", held_out="org/set:test")
    settle_config(RunFolder(config.run_path), with_hub_folders(config))
    cached(cache, "dataset", "org/set", NEW, *shards)
    assert with_hub_folders(config).data.held_out == f"{old}:test"


FILES = [
    "README.md", "data/train-0-of-1.parquet", "data/test-0-of-1.parquet", "train.jsonl", "test.jsonl.gz", "own.tsv",
    "images/1.png", "images/2.JPG", "train/000.tar", "sub/test/0.arrow", "sub/state.json", "weights.bin", "images.zip",
]  # fmt: skip
OTHERS = ["weights.bin", "images.zip"]


@pytest.mark.parametrize(
    ("name", "card", "left_out"),
    [
        ("org/set", "", OTHERS),
        ("org/set:test", "", ["data/train-0-of-1.parquet", "train/000.tar", *OTHERS]),
        ("org/set/sub", "", [file for file in FILES if not file.startswith("sub/")]),
        ("org/set/data/test-0-of-1.parquet", "", [file for file in FILES if file != "data/test-0-of-1.parquet"]),
        ("org/set/train.jsonl", "", [f for f in FILES if f not in ("train.jsonl", "images/1.png", "images/2.JPG")]),
        ("org/set:dev", "data/te*-of-*.parquet", [f for f in FILES if f not in ("README.md", FILES[2])]),
        ("org/set:dev", "train.jsonl", [*FILES[1:3], "train/000.tar", "sub/test/0.arrow", *OTHERS]),
    ],
)
def test_rows_in_all_forms_and_their_pictures_are_downloaded(
    name: str, card: str, left_out: list[str], tmp_path: Path
) -> None:
    utils = pytest.importorskip("huggingface_hub.utils")
    text = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: dev\n    path: {card}\n---\n"
    (tmp_path / "README.md").write_text(text if card else "", encoding="utf-8")
    named = hub_name(name)
    assert named is not None
    wanted = list(utils.filter_repo_objects(FILES, allow_patterns=dataset_patterns(named, card_splits(tmp_path))))
    assert [file for file in FILES if file not in wanted] == left_out


def test_of_a_split_the_card_is_asked_which_files_to_download(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cached(cache, "dataset", "org/set", OLD, "mmstar.parquet", "other.parquet")
    card = "---\nconfigs:\n- config_name: val\n  data_files:\n  - {split: val, path: mmstar.parquet}\n---\n"
    asked: list[list[str]] = []

    def download(name: str, *, repo_type: str, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert (name, repo_type, revision, local_files_only) == ("org/set", "dataset", "v1", False)
        asked.append(allow_patterns)
        (data / "README.md").write_text(card, encoding="utf-8")
        return str(data)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    config = settings(tmp_path, model="/models/own", train="org/set@v1:val", held_out="/data/b")
    assert with_hub_folders(config).data.train == str(data / "mmstar.parquet")
    assert asked == [["README.md"], ["README.md", "mmstar.parquet"]]
