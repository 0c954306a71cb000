"""A tiny Qwen2.5-VL folder and groups of random completions for it."""

from pathlib import Path

import pytest
import torch
from tiny_learner import write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configuration, random weights and image processor."""
    folder = tmp_path_factory.mktemp("tiny_qwen2_5_vl")
    write_tiny_model(folder)
    return folder
