"""A tiny model folder of each family, its policy and the reference."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plain_model import load_plain, whole_policy

from learner.policy.images import ImageEncoder
from learner.policy.model import Policy
from tests.families.case import Case, find_cases, write_model

CASES = find_cases()
TEMPERATURE = 0.7


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def family(case: Case) -> str:
    return case.name


@pytest.fixture(scope="session")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configuration, random weights, tokenizer and processor."""
    path = tmp_path_factory.mktemp(case.name)
    write_model(path, case)
    return path


@pytest.fixture
def policy(folder: Path) -> Policy:
    return whole_policy(folder, temperature=TEMPERATURE)


@pytest.fixture
def plain(folder: Path) -> torch.nn.Module:
    return load_plain(folder)


@pytest.fixture
def encoder(folder: Path, policy: Policy) -> ImageEncoder:
    return ImageEncoder.from_pretrained(folder, policy.family)
