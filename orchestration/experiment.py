"""An experiment in Python: what the commands plan, train and score do, from a notebook or a script."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestration.plan.command import checked_plan
from orchestration.plan.plan import RunPlan
from orchestration.score.command import RowScorer
from orchestration.score.rows import BadRow, rows_of
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError, DataError, InfrastructureError, LossError, StoppedError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.files import Arguments, as_written
from orchestration.settings.function_source import code_of
from orchestration.settings.groups import ConfigGroups
from orchestration.storage.run_folder import RunFolder
from rewards.core.base import RewardResult

ENDINGS: dict[int, type[Exception]] = {2: ConfigError, 3: LossError, 75: StoppedError, 130: StoppedError}
"""Errors of the exit codes of `mixed-r1 train`; every other one is InfrastructureError."""
NUM_LAST_LINES = 5


class Experiment:
    """Settings of a run, and the commands on them.

    Example:
        >>> experiment = Experiment("experiment=cpu_quick", {"training.num_steps": 3})
        >>> experiment.settings.training.num_steps
        3
    """

    def __init__(
        self,
        *settings: str | Mapping[str, Any],
        config: str | Path | None = None,
        config_dir: str | Path | None = None,
    ) -> None:
        """Compose the settings.

        Args:
            settings: `key=value` as on the command line, or mappings from keys to values. The value of a setting that
                names code may be a function, one of a notebook too (see `function_source`).
            config: as `--config`.
            config_dir: as `--config-dir`.

        Raises:
            ConfigError: as the commands do.
        """
        typed: list[str] = []  # all that can decide where functions are written
        for setting in settings:
            if isinstance(setting, str):
                typed.append(setting)
            elif "cache_dir" in setting:
                typed.append(f"++cache_dir={as_written(setting['cache_dir'])}")
        places = [None if path is None else Path(path).expanduser().absolute() for path in (config, config_dir)]
        given = Arguments(overrides=tuple(typed), config=places[0], config_dir=places[1])
        folder = Path(compose(given.written())["cache_dir"]) / "functions"
        overrides = [text for setting in settings for text in _as_typed(setting, folder)]
        self.arguments = Arguments(overrides=tuple(overrides), config=places[0], config_dir=places[1]).written()
        """What the same command would be typed with."""
        self.settings: ExperimentConfig = build_settings(compose(self.arguments))
        self.folder = RunFolder(self.settings.run_path)
        """Paths of what a run writes: metrics, report, export, ..."""

    def plan(self) -> RunPlan:
        """Plan the run, as `mixed-r1 plan`; nothing is started.

        Raises:
            ConfigError: as the command does.
        """
        return checked_plan(self.settings)

    def score(self, rows: Iterable[Mapping[str, Any]], *, embeddings: str | Path | None = None) -> list[RewardResult]:
        """Score responses, as `mixed-r1 score`.

        Args:
            rows: each with id, task, response and answer, and the other fields of that command where they matter.
            embeddings: checkpoint whose tokenizer and embedding table BMAS uses; None takes a table of words.

        Raises:
            DataError: a row cannot be scored; its number, from 1, and the reason are named.
            RewardError: the settings or the checkpoint cannot be used.
        """
        config = self.settings.reward
        read = list(rows_of(enumerate(rows, start=1), config))
        if bad := [f"row {row.line}: {row.reason}" for row in read if isinstance(row, BadRow)]:
            raise DataError("; ".join(bad))
        with closing(RowScorer(config, None if embeddings is None else Path(embeddings), Path())) as scorer:
            return [scored[1] for scored in scorer.score(read) if not isinstance(scored, BadRow)]

    def run(self, say: Callable[[str], None] = print) -> RunFolder:
        """Train, or continue the run in run_dir, as `mixed-r1 train`, in a process of its own.

        That process holds Ray and all memory of the run, and is gone when the run ends. An interrupt of the notebook
        lets it save and stop.

        Args:
            say: gets each line that the command prints.

        Returns:
            The paths of what the run wrote.

        Raises:
            ConfigError: settings or inputs cannot be used.
            LossError: a source of the recipe lost rows that it may not lose.
            StoppedError: it was asked to stop; `run` again continues it.
            InfrastructureError: it ended with another error; the message has its last lines.
        """
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "train", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt comes once, from here
        )
        last: list[str] = []
        assert process.stdout is not None
        with process.stdout:
            while True:
                try:
                    line = process.stdout.readline()
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGINT)
                    continue
                if not line:
                    break
                say(line.rstrip("\n"))
                last = [*last[1 - NUM_LAST_LINES :], line.strip()]
        if code := process.wait():
            raise ENDINGS.get(code, InfrastructureError)(
                f"mixed-r1 train ended with exit code {code}: {' '.join(last[-1:] if code in ENDINGS else last)}"
            )
        return self.folder


def _as_typed(setting: str | Mapping[str, Any], folder: Path) -> list[str]:
    """Return settings as one would type them; functions are written to files in the folder."""
    if isinstance(setting, str):
        return [setting]

    def written(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: written(f"{key}.{name}", inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [written(f"{key}[{i}]", inner) for i, inner in enumerate(value)]
        return code_of(key, value, folder) if callable(value) else value

    groups = ConfigGroups()
    return [
        f"{key}={value}"
        if isinstance(value, str) and groups.is_group(key.lstrip("+"))
        else f"++{key}={as_written(written(key, value))}"
        for key, value in setting.items()
    ]
