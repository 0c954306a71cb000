"""Experiment: the commands from Python, with functions of a notebook."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conf.own_code import load_own
from orchestration import Experiment
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import build_settings
from orchestration.settings.function_source import code_of

ROOT = Path(__file__).parents[2]


def as_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run text as a script, whose functions belong to __main__ as those of a notebook do."""
    (folder / "notebook.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "notebook.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def test_the_example_of_the_page_plans_and_scores(tmp_path: Path) -> None:
    page = (ROOT / "orchestration" / "README.md").read_text()
    [example] = re.findall(r"## From Python\n.*?```python\n(.*?)```", page, re.DOTALL)
    done = as_script(tmp_path, example)
    assert (done.stdout, done.returncode) == ("True\n1.0\n", 0), done.stderr


def test_settings_are_those_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text("algorithm: dapo\n")
    text = "it's ${x}, \\ 'so'"
    mapping = {"training.num_steps": 3, "rollout.system_prompt": text, "model": "tiny_internvl", "data.train": None}
    experiment = Experiment("experiment=cpu_quick", mapping, config=file)
    typed = ["experiment=cpu_quick", "training.num_steps=3", "model=tiny_internvl", f"--config={file}"]
    escaped = text.replace("${", r"\${")
    assert experiment.settings == build_settings(compose([*typed, f"rollout.system_prompt={escaped}"]))
    assert experiment.settings.rollout.system_prompt == text
    with pytest.raises(ConfigError, match=r"did you mean training\.num_steps\?"):
        Experiment({"training.num_step": 3})


def test_a_cache_of_a_mapping_holds_the_written_functions_and_patterns_are_written(tmp_path: Path) -> None:
    done = as_script(
        tmp_path,
        """
        import re
        from orchestration import Experiment
        WORD = re.compile("[a-z]+", re.IGNORECASE)
        def share(request):
            return len(WORD.findall(request.parsed_answer)) / 2
        reward = {"functions": {"share": share}, "routes": {"chart": "share"}}
        experiment = Experiment({"reward": reward}, {"cache_dir": "kept"})
        row = {"id": "1", "task": "chart", "response": "<think>x</think><answer>Red 4</answer>", "answer": "4"}
        print(experiment.score([row])[0].task_reward)
        """,
    )
    assert done.stdout == "0.5\n", done.stderr
    assert len(list(tmp_path.glob("kept/functions/*/share.py"))) == 1
    assert not (tmp_path / "runs").exists()


def test_a_lambda_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"give a function that was defined with def at the top level"):
        Experiment({"reward.functions.mine": lambda request: 1.0})


def test_rows_that_cannot_be_scored_are_named() -> None:
    good = {"id": "a", "task": "chart", "response": "<think>x</think><answer>45</answer>", "answer": "45"}
    experiment = Experiment()
    assert [result.task_reward for result in experiment.score([good, {**good, "answer": "7"}])] == [1.0, 0.0]
    with pytest.raises(DataError, match=r"row 2: "):
        experiment.score([good, {"id": "b", "task": "chart"}])


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, orchestration; print([n for n in sys.modules if n.startswith(('orchestration.', 'torch', 'ray'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_function_of_a_notebook_is_written_with_what_it_uses(tmp_path: Path) -> None:
    done = as_script(
        tmp_path,
        f"""
        import math as m
        from collections import Counter
        from pathlib import Path
        from orchestration.settings.function_source import code_of
        LIMITS = {{"a": [1, 2.5], "b": None}}
        data = object()
        def inner(x, y=LIMITS):
            return m.sqrt(x) + y["a"][1]
        def mine(x: Counter) -> float:
            return inner(x) + len(Counter("aab")) + sum(LIMITS["a"][0] for _ in "ab")
        def bad(x):
            return data
        def around():
            z = 1
            return lambda: z
        print(code_of("k", mine, Path({str(tmp_path)!r})))
        plain = lambda x: 1
        for function in (bad, around(), print, plain):
            try:
                code_of("reward.functions.k", function, Path({str(tmp_path)!r}))
            except ValueError as error:
                print(error)
        """,
    )
    written, bad, nested, builtin, plain = done.stdout.splitlines()
    (tmp_path / "notebook.py").unlink()
    assert load_own("k", written)(4) == 2 + 2.5 + 2 + 2
    assert bad == (
        "reward.functions.k: bad uses data, a object that a file cannot hold; make it inside the function, or write it "
        "to a file and name that: FILE.py:NAME"
    )
    assert nested.startswith("reward.functions.k is around.<locals>.<lambda>; give a function")
    assert builtin.startswith("reward.functions.k is print; give a function")
    assert plain.startswith("reward.functions.k is <lambda>; give a function")


def test_a_function_of_a_file_is_named_there() -> None:
    assert code_of("k", as_script, Path("/nowhere")) == f"{Path(__file__).absolute()}:as_script"


def test_a_run_that_is_refused_raises_what_the_command_says(tmp_path: Path) -> None:
    experiment = Experiment({"model.path": str(tmp_path / "absent"), "run_dir": str(tmp_path / "run")})
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"exit code 2: mixed-r1 train: .*absent does not exist"):
        experiment.run(said.append)
    assert said[-1].startswith("mixed-r1 train: ")


@pytest.mark.slow
def test_a_run_trains_with_a_function_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(request):\n    return 1.0 if request.parsed_answer else 0.0\n")
    settings = {"reward.functions.mine": f"{file}:score", "reward.routes.chart": "mine", "training.num_steps": 2}
    experiment = Experiment("experiment=cpu_smoke", settings, {"run_dir": str(tmp_path / "run")})
    folder = experiment.run()
    assert (folder.export / "config.json").is_file()
    assert list(json.loads(folder.own_code.read_text())) == ["reward.functions.mine"]
