"""The examples in the docstrings of the rewards are true."""

import doctest
import importlib
import pkgutil

import pytest

import rewards

MODULES = [module.name for module in pkgutil.iter_modules(rewards.__path__) if module.name != "math_worker"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_hold(name: str) -> None:
    module = importlib.import_module(f"rewards.{name}")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples_to_hold() -> None:
    found = [doctest.testmod(importlib.import_module(f"rewards.{name}")).attempted for name in MODULES]
    assert sum(found) >= 30
