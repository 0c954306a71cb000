"""The wheel, installed in an empty environment away from the sources, finds its settings and trains."""

import importlib.metadata
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "learner", "orchestration", "rewards", "rollout")
PLANTED = "planted-value-4711"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves folders beside what it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source))
    [built] = out.glob("*.whl")
    return built


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Environment:
    """A virtual environment that holds the wheel and nothing else yet."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "venv", with_pip=False)
        self._bin = folder / "venv" / "bin"
        [self.packages] = (folder / "venv" / "lib").glob("python*/site-packages")
        self._cwd = folder / "elsewhere"
        self._cwd.mkdir()
        pip("--python", str(self._bin / "python"), "install", "--no-deps", "--no-index", str(wheel))

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [self._bin / command[0], *command[1:]],
            cwd=self._cwd,
            env={**inherited, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def location(self, package: str) -> Path:
        found = self.run("python", "-c", f"import {package}; print({package}.__file__)")
        return Path(found.stdout.strip())


def with_dependencies(names: list[str]) -> Iterator[importlib.metadata.Distribution]:
    """Distributions of this environment that these requirements pull in, once each."""
    seen: set[str] = set()
    while names:
        requirement = Requirement(names.pop())
        if requirement.name in seen or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        distribution = importlib.metadata.distribution(requirement.name)
        names += distribution.requires or []
        yield distribution


@pytest.fixture
def light(tmp_path: Path, wheel: Path) -> Environment:
    """With what [project] dependencies name, and not what the extras add: no torch, no Ray, no vLLM."""
    environment = Environment(tmp_path, wheel)
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    for distribution in with_dependencies([line for line in wanted if "extra ==" not in line]):
        for top in {path.parts[0] for path in distribution.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            target = environment.packages / top
            if not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(top))))
    return environment


def test_every_file_of_settings_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("conf/") and name.endswith(".yaml")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}


def test_the_wheel_alone_shows_its_help_and_its_settings_and_says_what_the_rest_needs(light: Environment) -> None:
    assert light.location("orchestration").is_relative_to(light.packages)
    assert light.run("python", "-c", "import torch").returncode != 0

    shown = light.run("mixed-r1", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    composed = light.run("mixed-r1", "config", "experiment=cpu_smoke", "seed=5")
    assert composed.returncode == 0, composed.stderr
    assert "seed: 5" in composed.stdout
    assert "num_steps: 3" in composed.stdout
    for lacking in (["plan", "experiment=qwen2_5_vl_7b/8_gpus", "run_dir=/shared/run"], ["train"]):
        refused = light.run("mixed-r1", *lacking)
        assert refused.returncode == 2
        assert "pip install '.[train]'" in refused.stderr


@pytest.mark.slow
def test_the_wheel_trains_and_writes_no_secret_of_its_environment(tmp_path: Path, cache: Path, wheel: Path) -> None:
    environment = Environment(tmp_path, wheel)
    # A path in a .pth file is searched, but the .pth files there, the editable project among them, are not read.
    (environment.packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    assert environment.location("orchestration").is_relative_to(environment.packages)
    run = tmp_path / "run"

    done = environment.run(
        "mixed-r1", "train", "experiment=cpu_smoke", f"run_dir={run}", f"cache_dir={cache}",
        HF_TOKEN=PLANTED, WANDB_API_KEY=PLANTED,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "metrics.jsonl").read_text().count("\n") == 3
    holding = [path for path in run.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]
    assert holding == []
    assert PLANTED not in done.stdout + done.stderr
