"""Nothing that is read may run: no remote code of models, no pickles, no unsafe YAML, no eval."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("conf", "learner", "orchestration", "rewards", "rollout")
UNPICKLERS = {"learner/backends/plain_loading.py", "orchestration/data/sources/refcoco.py"}
"""Both refuse every name that they do not know."""
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a source, with the name that is called as it is written."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    """A keyword argument as it is written; None where it is not given."""
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), None)


def offences(source: str, *, may_unpickle: bool) -> list[str]:
    """What a source does that could run what it reads."""
    found = []
    for name, call in calls(source):
        if keyword(call, "trust_remote_code") not in (None, "False"):
            found.append(f"{name} trusts remote code")
        if keyword(call, "allow_pickle") not in (None, "False"):
            found.append(f"{name} allows pickles")
        if name == "torch.load" and keyword(call, "weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if name in FORBIDDEN_CALLS:
            found.append(f"{name} is called")
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{name} is imported" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
            found += [] if may_unpickle else [f"{node.name} unpickles"]
    return found


def test_no_source_runs_what_it_reads() -> None:
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
    found = {name: offences(source, may_unpickle=name in UNPICKLERS) for name, source in sources.items()}
    assert len(found) > 150
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("line", "offence"),
    [
        (
            "AutoProcessor.from_pretrained(p, trust_remote_code=True)",
            "AutoProcessor.from_pretrained trusts remote code",
        ),
        ("EngineArgs(trust_remote_code=config.trust)", "EngineArgs trusts remote code"),
        ("torch.load(p)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=False)", "torch.load without weights_only=True"),
        ("np.load(p, allow_pickle=True)", "np.load allows pickles"),
        ("pickle.loads(b)", "pickle.loads is called"),
        ("import dill", "dill is imported"),
        ("class A(pickle.Unpickler): ...", "A unpickles"),
    ],
)
def test_the_search_finds_what_it_looks_for(line: str, offence: str) -> None:
    assert offences(line, may_unpickle=False) == [offence]


def test_models_and_processors_are_loaded_without_remote_code_and_that_is_written_down() -> None:
    said = {
        str(path.relative_to(ROOT))
        for path in FILES
        for _, call in calls(path.read_text())
        if keyword(call, "trust_remote_code")
    }
    assert {"rollout/translation.py", "rollout/prompt.py"} <= said


def test_no_choice_of_settings_turns_remote_code_on() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert not re.search(r"trust_remote_code|allow_pickle|weights_only", path.read_text()), path
