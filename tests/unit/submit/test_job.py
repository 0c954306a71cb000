"""What a job is made of, and what is refused before anything is sent."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf.own_code import OwnCodeError
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.strict import build
from orchestration.submit.client import LOST_DRIVER, JobState, JobStatus, exit_code, is_worth_repeating, server_address
from orchestration.submit.job import PACKAGES, default_name, entrypoint, make_job, source_folder, stage_code

SHARED = ["cluster=ray", "run_dir=/shared/runs/first", "cache_dir=/shared/cache"]


def job_of(*overrides: str, shell: dict[str, str] | None = None) -> Any:
    everything = [*SHARED, *overrides]
    config = build(ExperimentConfig, compose(everything, is_for_here=False))
    return make_job(config, everything, shell or {})


def test_the_entry_point_is_the_module_with_every_setting_but_those_of_submit() -> None:
    job = job_of("seed=3", "submit.python=/opt/venv/bin/python", "+submit.environment={A: b}", "submit=default")
    expected = "exec /opt/venv/bin/python -m orchestration.cli train cluster=ray run_dir=/shared/runs/first"
    assert job.entrypoint == f"{expected} cache_dir=/shared/cache seed=3"
    assert job.environment == {"A": "b", "RAY_JOB_STOP_WAIT_TIME_S": "600"}
    assert job.metadata == {"project": "mixed-r1", "run_dir": "/shared/runs/first"}


def test_settings_reach_the_driver_as_they_were_written_whatever_they_hold() -> None:
    nasty = ["a='x y'", "b=$(touch /tmp/no)", "c={k: [1,2]}", "d=`id`", 'e="q\'s"', "f=;exit 3", "g=ä"]
    line = entrypoint("printf", nasty, [])
    # The same shell that Ray uses; `printf %s` stands in for the driver.
    line = line.replace("printf -m orchestration.cli train", "printf '%s\\n'")
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == nasty


def test_the_driver_takes_the_place_of_the_shell_so_that_its_signal_is_seen(tmp_path: Path) -> None:
    killer = tmp_path / "killer"
    killer.write_text("#!/bin/sh\nkill -KILL $$\n")
    killer.chmod(0o755)
    code = subprocess.Popen(entrypoint(str(killer), [], []), shell=True).wait()
    assert code == -signal.SIGKILL
    assert exit_code(JobState(status=JobStatus.FAILED, driver_exit_code=code)) == 137


@pytest.mark.parametrize(("value", "code"), [(None, 2), ("", 2), ("key", 0)])
def test_a_required_variable_is_looked_for_where_the_driver_runs(value: str | None, code: int) -> None:
    line = entrypoint("true", [], ["WANDB_API_KEY"])
    environment = {"PATH": os.environ["PATH"]} | ({"WANDB_API_KEY": value} if value is not None else {})
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code
    assert ("WANDB_API_KEY is not set on" in done.stderr) == (code == 2)
    assert "key" not in shlex.split(line)


def test_variables_of_the_shell_are_passed_on_by_name() -> None:
    job = job_of("submit.pass_environment=[NCCL_DEBUG]", shell={"NCCL_DEBUG": "INFO", "HOME": "/root"})
    assert job.environment["NCCL_DEBUG"] == "INFO"
    assert "HOME" not in job.environment
    with pytest.raises(ConfigError, match="names NCCL_DEBUG, not set in this shell"):
        job_of("submit.pass_environment=[NCCL_DEBUG]")


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (["cluster=local"], r"cluster\.address is null; .* add cluster=ray"),
        (["cluster.address=10.0.0.1:6379"], r"cluster\.address is 10\.0\.0\.1:6379; .* set cluster\.address=auto"),
        (["run_dir=runs/first"], r"run_dir=runs/first is relative, .* run_dir=/shared/first"),
        (["cache_dir=cache"], r"cache_dir=cache is relative"),
        (["data.train=a.parquet", "data.held_out=/b.parquet"], r"data\.train=a\.parquet is relative"),
        (["+evaluation.sets={hard: {path: hard.parquet}}"], r"evaluation\.sets\.hard\.path=hard\.parquet is relative"),
        (["run_dir=/tmp/first"], r"run_dir=/tmp/first is on one machine .* submit\.allow_temporary_run_dir=true"),
        (["submit.max_attempts=0"], r"submit\.max_attempts is 0; use 1 or more"),
        (["submit.follow=false"], r"with submit\.follow=false nobody is there to submit again"),
        (["submit.name='a/b'"], r"submit\.name is 'a/b'"),
        (["submit.require_environment=['A;B']"], r"submit\.require_environment names 'A;B'"),
        (["submit.pass_environment=[WANDB_API_KEY]"], r"submit\.require_environment=\[WANDB_API_KEY\]"),
        (["submit.max_package_mib=0"], r"submit\.max_package_mib is 0\.0"),
        (["submit.on_interrupt=ask"], r"submit\.on_interrupt is 'ask'; allowed: detach, stop"),
    ],
)
def test_what_cannot_be_a_job_is_refused_with_key_and_remedy(overrides: list[str], refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        job_of(*overrides)


def test_a_temporary_run_folder_can_be_asked_for() -> None:
    assert job_of("run_dir=/tmp/first", "submit.allow_temporary_run_dir=true").name.startswith("first-")


def test_two_folders_of_one_name_are_two_jobs() -> None:
    names = {default_name("/shared/a/first"), default_name("/shared/b/first"), default_name("/shared/b////")}
    assert len(names) == 3


def test_the_address_is_taken_from_setting_or_environment_and_never_from_both() -> None:
    def address(setting: str, shell: dict[str, str]) -> str:
        config = build(ExperimentConfig, compose([*SHARED, f"submit.address={setting}"], is_for_here=False))
        return server_address(config.submit, shell)

    here, there = "http://127.0.0.1:8265", "http://10.0.0.1:8265"
    assert address(here, {}) == address("null", {"RAY_API_SERVER_ADDRESS": here}) == here
    with pytest.raises(ConfigError, match=r"Ray would take the latter: unset one"):
        address(here, {"RAY_API_SERVER_ADDRESS": there})
    with pytest.raises(ConfigError, match=r"submit\.address is null and RAY_API_SERVER_ADDRESS is not set"):
        address("null", {})
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1:6379 is no dashboard"):
        address("'10.0.0.1:6379'", {})


def test_ray_and_we_call_a_lost_driver_by_the_same_name() -> None:
    from ray.job_submission import JobErrorType
    from ray.job_submission import JobStatus as RayStatus

    assert JobErrorType.JOB_SUPERVISOR_ACTOR_DIED.value == LOST_DRIVER
    assert {status.value for status in RayStatus} == set(JobStatus)


def test_a_stopped_job_is_not_begun_again() -> None:
    assert not is_worth_repeating(JobState(status=JobStatus.STOPPED))


def test_the_packages_go_and_nothing_else_of_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    for package in PACKAGES:
        (source / package / "__pycache__").mkdir(parents=True)
        (source / package / "module.py").write_text("x = 1\n")
        (source / package / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"x")
    (source / "conf" / "experiment").mkdir()
    (source / "conf" / "experiment" / "own.yaml").write_text("a: 1\n")
    (source / "conf" / ".env").write_text("KEY=x\n")
    (source / ".env").write_text("KEY=x\n")
    (source / "runs").mkdir()
    (source / "runs" / "weights").write_bytes(b"x")

    staged = stage_code(source, tmp_path / "staged", max_mib=1.0)

    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert found == {f"{package}/module.py" for package in PACKAGES} | {"conf/experiment/own.yaml"}


def test_too_much_code_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "rewards" / "vectors.bin").write_bytes(bytes(3 * 2**20))
    refusal = r"has 3\.0 MiB and submit\.max_package_mib is 2; .* rewards/vectors\.bin \(3\.0 MiB\)"
    with pytest.raises(ConfigError, match=refusal):
        stage_code(tmp_path, tmp_path / "staged", max_mib=2.0)
    assert not (tmp_path / "staged").exists()


def test_our_own_packages_are_a_small_parcel_that_runs_where_it_lands(tmp_path: Path) -> None:
    staged = stage_code(source_folder(), tmp_path / "staged", max_mib=10.0)
    command = [sys.executable, "-m", "orchestration.cli", "config", "seed=5"]
    done = subprocess.run(command, cwd=staged, capture_output=True, text=True, check=True)
    assert "seed: 5" in done.stdout


def own_code(folder: Path) -> Path:
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text("import beside\ndef read(): ...\n")
    (folder / "code" / "beside.py").write_text("x = 1\n")
    return folder / "code"


def test_own_code_goes_along_and_the_job_composes_settings_that_name_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_code(tmp_path)
    package = tmp_path / "own_package_5"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "reader.py").write_text("def read(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    job = job_of(
        "+data.recipe.sources.mine={adapter: 'code/mine.py:read'}",
        "+data.recipe.sources.other={adapter: 'own_package_5.reader:read'}",
        "+data.recipe.sources.third={adapter: 'json:loads'}",
    )
    [folder] = {path.rpartition("/")[0] for path in job.files if path.startswith("own_code/")}
    package_files = {"own_package_5/__init__.py", "own_package_5/reader.py"}
    assert set(job.files) == {f"{folder}/mine.py", f"{folder}/beside.py"} | package_files

    staged = stage_code(source_folder(), tmp_path / "staged", max_mib=10.0, files=job.files)
    arguments = shlex.split(job.entrypoint)[5:]
    command = [sys.executable, "-m", "orchestration.cli", "config", *arguments]
    done = subprocess.run(command, cwd=staged, capture_output=True, text=True, check=True)
    assert f"adapter: {staged}/{folder}/mine.py:read" in done.stdout
    assert "adapter: own_package_5.reader:read" in done.stdout


def test_own_code_counts_against_the_limit_and_is_refused_where_it_is_not_there(tmp_path: Path) -> None:
    code = own_code(tmp_path)
    adapter = f"+data.recipe.sources.mine={{adapter: '{code}/mine.py:read'}}"
    for package in PACKAGES:
        (tmp_path / "source" / package).mkdir(parents=True)
    (code / "beside.py").write_text("x = 1\n" + "#" * 3 * 2**20)
    with pytest.raises(ConfigError, match=r"has 3\.0 MiB and .*beside\.py \(3\.0 MiB\)"):
        stage_code(tmp_path / "source", tmp_path / "staged", max_mib=2.0, files=job_of(adapter).files)
    with pytest.raises(OwnCodeError, match=r"sources\.mine\.adapter=.*has no raed; did you mean read\?"):
        job_of(adapter.replace(":read", ":raed"))


def test_where_no_code_is_shipped_its_file_must_be_named_from_the_root(tmp_path: Path) -> None:
    relative = "+data.recipe.sources.mine={adapter: 'code/mine.py:read'}"
    with pytest.raises(ConfigError, match=r"is relative, and submit\.ship_code=false"):
        job_of(relative, "submit.ship_code=false")
    job = job_of(relative.replace("code/", "/shared/code/"), "submit.ship_code=false")
    assert job.files == {}
    assert "/shared/code/mine.py:read" in job.entrypoint


def test_settings_of_ones_own_go_along(tmp_path: Path) -> None:
    (tmp_path / "groups" / "experiment").mkdir(parents=True)
    (tmp_path / "groups" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 5\n")
    (tmp_path / "groups" / "notes.txt").write_text("not needed")
    (tmp_path / "few.yaml").write_text("experiment: mine\ntraining: {num_steps: 3}\n")
    job = job_of(f"--config={tmp_path}/few.yaml", f"--config-dir={tmp_path}/groups")
    assert set(job.files) == {"settings/few.yaml", "settings/groups/experiment/mine.yaml"}
    staged = stage_code(source_folder(), tmp_path / "staged", max_mib=10.0, files=job.files)
    arguments = shlex.split(job.entrypoint)[5:]
    command = [sys.executable, "-m", "orchestration.cli", "config", *arguments]
    done = subprocess.run(command, cwd=staged, capture_output=True, text=True, check=True)
    assert "\nseed: 5\n" in done.stdout
    assert "num_steps: 3" in done.stdout
