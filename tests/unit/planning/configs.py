"""Whole runs for the tests of plans."""

from pathlib import Path

from orchestration.cli import compose
from orchestration.config.experiment import ExperimentConfig, build_config


def gpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """Four learner ranks of FSDP2 and four engines of one GPU each, as the GPU groups of conf have it."""
    gpu = ["learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray", f"run_dir={tmp_path / 'run'}"]
    return build_config(compose([*gpu, *overrides]))


def cpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """The embedded default."""
    return build_config(compose([f"run_dir={tmp_path / 'run'}", *overrides]))
