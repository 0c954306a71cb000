"""Tiny model folders, and one life of each scenario on one rank."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from learner_scenarios import live_case
from tiny_learner import FAMILIES, write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By family: a folder with configuration, random weights and image processor."""
    folders = {family: tmp_path_factory.mktemp(f"tiny_{family}") for family in FAMILIES}
    for family, folder in folders.items():
        write_tiny_model(folder, family)
    return folders


@pytest.fixture(scope="session")
def model_path(model_paths: dict[str, Path]) -> Path:
    """The Qwen2.5-VL."""
    return model_paths["qwen2_5_vl"]


@pytest.fixture(scope="session")
def one_rank(model_paths: dict[str, Path]) -> Callable[[str], dict]:
    """A case of learner_scenarios on one rank of FSDP in this process, lived once for all tests."""
    return cache(lambda name: live_case(0, 1, 0, model_paths, name, {}))
