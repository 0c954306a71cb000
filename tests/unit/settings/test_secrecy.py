"""Secrets are refused wherever settings come from, and a run writes none of its environment down."""

import json

import pytest

from orchestration import cli
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import is_secret_name, refuse_secrets
from orchestration.storage.run_folder import RunFolder, write_environment

PLANTED = "planted-value-4711"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "KAGGLE_KEY", "password",
        "DB_PASSWORD", "apikey", "judge.api_key", "client-secret", "credentials", "SSH_PRIVATE_KEY",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_completion_tokens", "token_budget", "tokens", "tokenizer", "secretary", "cluster_key", "NCCL_DEBUG",
        "image_token_id", "keep_best", "monkey", "passes",
    ],
)  # fmt: skip
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "override",
    [
        f"+cluster.environment.WANDB_API_KEY={PLANTED}",
        f"+cluster.environment={{HF_TOKEN: {PLANTED}}}",
        f"+submit.environment.DB_PASSWORD={PLANTED}",
        f"training.checkpoint_dir='s3://user:{PLANTED}@bucket/run'",
        f"+cluster.environment.SOMETHING=hf_{PLANTED.replace('-', 'x')}abcdef",
        f"+nowhere.api_key={PLANTED}",
    ],
)
@pytest.mark.parametrize("verb", ["config", "train", "submit"])
def test_a_setting_that_holds_a_secret_is_refused_and_its_value_not_repeated(
    verb: str, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([verb, override])
    output = capsys.readouterr()
    assert left.value.code == 2
    assert "looks like" in output.err
    assert "submit.require_environment" in output.err
    assert PLANTED not in output.out + output.err
    assert PLANTED.replace("-", "x") not in output.out + output.err


def test_a_secret_in_a_file_of_settings_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"judges\[1\]\.api_key looks like a secret") as caught:
        refuse_secrets({"judges": [{"api_key": None}, {"api_key": PLANTED}]})
    assert PLANTED not in str(caught.value)


def test_what_a_model_publishes_about_its_tokens_is_no_secret() -> None:
    values = compose(["+model.hf_processor={image_token: '<image>'}", "+model.hf_config.bos_token='<s>'"])
    assert values["model"]["hf_processor"] == {"image_token": "<image>"}


def test_what_a_run_writes_of_its_environment_holds_no_variables(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    folder = RunFolder(tmp_path)
    write_environment(folder)
    written = json.loads(folder.environment.read_text())
    assert set(written) == {"commit", "python", "machine", "cores", "versions"}
    assert PLANTED not in folder.environment.read_text()
