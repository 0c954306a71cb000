import doctest
import importlib

import pytest

MODULES = ("boxes", "containers", "fingerprints", "images", "normalise", "options", "reasons", "validate", "verify")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"orchestration.data.{name}")).failed == 0


def test_there_are_examples_to_hold() -> None:
    found = [doctest.testmod(importlib.import_module(f"orchestration.data.{name}")).attempted for name in MODULES]
    assert sum(found) >= 6
