"""What every adapter owes: a licence note, a docstring with its raw form and options, a fixture test, pickling."""

import doctest
import importlib
import inspect
import pickle
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from orchestration.data import sources
from orchestration.data.sources.base import Part
from orchestration.data.sources.registry import ADAPTERS, find_adapter
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build
from tests.unit.data.sources.reading import GOLDEN

TESTS = Path(__file__).parent
MODULES = [f"{sources.__name__}.{module.name}" for module in pkgutil.iter_modules(sources.__path__)]
HOSTS = re.compile(r"https?://|\bwww\.", re.IGNORECASE)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_states_what_is_known_of_its_terms(name: str) -> None:
    licence = find_adapter(name).licence
    assert licence.name
    assert len(licence.note) > 20


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_documents_its_raw_form_its_conversion_and_its_options(name: str) -> None:
    text = find_adapter(name).description
    assert "Conversion:" in text
    assert "Ids:" in text or "Ids are" in text
    assert "Options:" in text


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_read_by_a_fixture_test(name: str) -> None:
    called = re.compile(rf"""read\(\s*"{name}",""")
    assert any(called.search(path.read_text(encoding="utf-8")) for path in TESTS.glob("test_*.py"))


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_refuses_options_that_it_does_not_know(name: str, tmp_path: Path) -> None:
    config = SourceConfig(adapter=name, path=str(tmp_path), options={"no_such_option": 1})
    with pytest.raises(ConfigError, match=r"options.no_such_option is not a setting"):
        find_adapter(name).parts(tmp_path, config)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold_and_no_host_is_named(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    assert not HOSTS.search(inspect.getsource(module))


def recipe_of_the_readme() -> dict[str, SourceConfig]:
    text = (Path(sources.__path__[0]) / "README.md").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    return {name: build(SourceConfig, values, name) for name, values in entries.items()}


def test_the_recipes_of_the_readme_can_be_used_and_show_every_adapter(tmp_path: Path) -> None:
    recipe = recipe_of_the_readme()
    assert {config.adapter for config in recipe.values()} == set(ADAPTERS)
    for config in recipe.values():
        if config.path is None:  # drawn
            continue
        with pytest.raises(DataError, match="expected layout"):  # settings are read before files are missed
            find_adapter(config.adapter).parts(tmp_path, config)


def test_parts_and_rows_travel_between_processes() -> None:
    adapter = find_adapter("chartqa")
    config = SourceConfig(adapter="chartqa", path=str(GOLDEN / "chartqa"))
    parts: list[Part] = pickle.loads(pickle.dumps(adapter.parts(GOLDEN / "chartqa", config)))
    rows = list(adapter.rows(GOLDEN / "chartqa", parts[0], config))
    assert pickle.loads(pickle.dumps(rows)) == rows
