"""A tiny model folder of each family, its policy and the reference."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from plain_model import load_plain, whole_policy

from learner.policy.model import Policy
from learner.policy.padding import Encoder, load_encoder
from tests.families.case import Case, find_cases, write_model

CASES = find_cases()
README = Path(__file__).parents[2] / "learner" / "README.md"
TEMPERATURE = 0.7
ON_TWO_RANKS = ("internvl", "qwen2_5_vl", "qwen3_5")
"""Families whose two ranks are in the default suite; the others share their code, and cost seconds each."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_of_two_ranks = item.path.parent == Path(__file__).parent and "two_ranks" in getattr(item, "fixturenames", ())
        if is_of_two_ranks and item.callspec.params["case"].name not in ON_TWO_RANKS:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask of each case, or of those that the function `takes` of a test's module chooses.

    A fixture `case` of the module's own would not do: fixtures that need this one would keep another file's last case.
    """
    if "case" in metafunc.fixturenames:
        takes = getattr(metafunc.module, "takes", None)
        chosen = [case for case in CASES.values() if takes is None or takes(case)]
        if "_takes_images" in metafunc.fixturenames:
            chosen = [case for case in chosen if case.takes_images]
        metafunc.parametrize("case", chosen, ids=[case.name for case in chosen], indirect=True, scope="session")


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def family(case: Case) -> str:
    return case.name


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """Folder with configuration, random weights, tokenizer and processor of a family; written once."""

    def write(case: Case) -> Path:
        path = tmp_path_factory.mktemp(case.name)
        write_model(path, case)
        return path

    return cache(write)


@pytest.fixture(scope="session")
def own_families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], str | None]:
    """FILE.py:NAME of the class in learner/README.md, or None for a family of learner/families."""
    [code] = re.findall(r"`my_family\.py`:\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("own") / "my_family.py"
    path.write_text(code)
    return lambda case: None if case.class_in_readme is None else f"{path}:{case.class_in_readme}"


@pytest.fixture(scope="session")
def folder(case: Case, folders: Callable[[Case], Path]) -> Path:
    return folders(case)


@pytest.fixture(scope="session")
def own_family(case: Case, own_families: Callable[[Case], str | None]) -> str | None:
    return own_families(case)


@pytest.fixture
def _takes_images() -> None:
    """Of a test that asks of no language model; see `pytest_generate_tests`."""


@pytest.fixture
def policy(folder: Path, own_family: str | None) -> Policy:
    return whole_policy(folder, temperature=TEMPERATURE, own_family=own_family)


@pytest.fixture
def plain(folder: Path, case: Case) -> torch.nn.Module:
    return load_plain(folder, case.name)


@pytest.fixture
def encoder(folder: Path, policy: Policy) -> Encoder:
    return load_encoder(folder, policy.family)
