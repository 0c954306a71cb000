"""The examples in docstrings are true, wherever a module can be imported without an engine or a cluster."""

import doctest
import importlib
import pkgutil

import pytest

import orchestration.data
import orchestration.evaluate
import orchestration.plan
import orchestration.submit
import rewards

# A worker reads standard input when it is imported.
LEFT_OUT = {"rewards.functions.math_worker"}
MODULES = [
    module.name
    for package in (
        rewards,
        orchestration.data,
        orchestration.evaluate,
        orchestration.plan,
        orchestration.submit,
    )
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.ispkg and module.name not in LEFT_OUT
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_hold() -> None:
    assert sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES) >= 100
