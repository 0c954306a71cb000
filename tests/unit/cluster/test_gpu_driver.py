"""A driver of NVIDIA's that is too old for our CUDA is named before anything starts, with its remedy."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from conf import gpu_driver
from conf.gpu_driver import NEEDED_CUDA, driver_cuda, driver_version, too_old
from learner.errors import LearnerError
from learner.training.trainer import _pick_device
from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.plan.plan import plan_run
from orchestration.settings.errors import ConfigError
from rollout.errors import RolloutError
from tests.unit.learner.tiny_learner import make_config
from tests.unit.plan.runs import GPU_RUN, dataset, gpu_settings, row

DOCKER = Path(__file__).parents[3] / "docker"
OLD = "the NVIDIA driver here (CUDA 12.8) is too old for CUDA 13.0; install branch 580 or newer"


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_driver, "driver_cuda", lambda: 12080)
    monkeypatch.setattr(gpu_driver, "driver_version", lambda: None)


def library(folder: Path, body: str) -> str:
    """A library that stands for the driver's own."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source, made = folder / "cuda.c", folder / "libcuda.so.1"
    source.write_text(body)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
    return str(made)


def test_the_newest_cuda_that_a_driver_runs_is_what_the_driver_says(tmp_path: Path) -> None:
    assert driver_cuda(library(tmp_path, "int cuDriverGetVersion(int *v) { *v = 12080; return 0; }")) == 12080


@pytest.mark.parametrize("body", ["int cuDriverGetVersion(int *v) { return 999; }", "int unrelated;"])
def test_a_driver_that_does_not_tell_is_none(body: str, tmp_path: Path) -> None:
    assert driver_cuda(library(tmp_path, body)) is None


def test_a_machine_without_a_driver_has_no_fault(tmp_path: Path) -> None:
    assert driver_cuda(str(tmp_path / "libcuda.so.1")) is None
    assert driver_version(tmp_path / "version") is None
    assert too_old(None, None) is None


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 01:58:06 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (builder@host)",
    ],
)
def test_the_version_of_the_kernel_module_is_read(line: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
    assert driver_version(tmp_path / "version") == "570.124.06"


@pytest.mark.parametrize(("cuda", "is_old"), [(12020, True), (12090, True), (13000, False), (13020, False)])
def test_a_driver_is_judged_by_the_cuda_that_it_runs(cuda: int, is_old: bool) -> None:
    assert (too_old(cuda, "1.2.3") is not None) is is_old


def test_the_image_and_the_lock_are_of_the_cuda_that_is_asked_for() -> None:
    number = f"{NEEDED_CUDA // 1000}.{NEEDED_CUDA % 1000 // 10}"
    assert re.search(rf"^ARG CUDA_IMAGE=nvidia/cuda:{number}\.", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert re.search(rf"^cuda-toolkit=={number}\.", (DOCKER / "gpu.lock").read_text(), re.MULTILINE)


@pytest.mark.usefixtures("old_driver")
def test_a_run_on_this_machines_gpus_is_refused_before_anything_starts(tmp_path: Path) -> None:
    data = dataset(tmp_path / "rows.parquet", [row(0)])
    settings = [*GPU_RUN, f"run_dir={tmp_path}", f"data.train={data}", f"data.held_out={data}"]
    with pytest.raises(ConfigError, match=re.escape(f"rollout.engine.device is cuda, but {OLD}")):
        build_config(compose([*settings, "cluster.address=null"]), is_for_training=False)


@pytest.mark.usefixtures("old_driver")
def test_a_cluster_elsewhere_and_a_plan_do_not_ask_this_machines_driver(tmp_path: Path) -> None:
    data = dataset(tmp_path / "rows.parquet", [row(0)])
    settings = [*GPU_RUN, f"run_dir={tmp_path}", f"data.train={data}", f"data.held_out={data}"]
    with pytest.raises(ConfigError) as refused:  # there is no model
        build_config(compose(settings), is_for_training=False)
    assert "driver" not in str(refused.value)
    assert plan_run(gpu_settings("cluster.address=null")).fits


@pytest.mark.usefixtures("old_driver")
def test_engines_and_ranks_of_a_cluster_name_the_driver_of_their_machine(tmp_path: Path) -> None:
    from rollout.engine import GenerationEngine  # brings vLLM

    with pytest.raises(RolloutError, match=re.escape(f"rollout.engine.device is cuda, but {OLD}")):
        GenerationEngine(gpu_settings().rollout, tmp_path)
    assert not torch.cuda.is_available()
    with pytest.raises(LearnerError, match=re.escape(f"learner.device is cuda, but {OLD}")):
        _pick_device(make_config(tmp_path, device="cuda"), 0)
