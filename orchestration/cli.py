"""The command `mixed-r1`: the one file that knows Hydra. Every verb takes Hydra overrides (key=value)."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and Path(sys.path[0]).absolute() == Path.cwd() != Path(__file__).parents[1]:
    # `python -m` puts the working directory first, where a folder `rewards` or a file torch.py would replace ours.
    del sys.path[0]

from learner.errors import CheckpointError, DivergedError, LearnerError
from orchestration.config.secrecy import refuse_secret_overrides, refuse_secrets
from orchestration.config.strict import unknown_key
from orchestration.errors import (
    ConfigError,
    DataError,
    InfrastructureError,
    InterruptedRunError,
    ResumeError,
    StoppedError,
)
from rewards.base import RewardError
from rollout.errors import RolloutError, WeightSyncError

USAGE = """usage: mixed-r1 VERB [key=value ...]

  plan     say what a run needs and whether it fits, before anything is taken; --json; exit code 3: it does not fit
  train    train, or continue the run in run_dir
  submit   train as a job of a Ray cluster, follow it, and submit it again where that helps
  data     build a dataset from raw sources (mixed-r1 data --help)
  evaluate score a checkpoint on a dataset: checkpoint=... data=...
  report   write run_dir/report.html again from what the run recorded
  score    score a file of responses, without a GPU (mixed-r1 score --help)
  config   print the composed settings

Settings come from the YAML of the package `conf`; key=value overrides one, group=name chooses a file:
  mixed-r1 train rollout.engines=2 learner.num_ranks=2 run_dir=runs/two_by_two
  mixed-r1 train experiment=cpu_quick
"""

USER_ERRORS = (ConfigError, DataError, ResumeError, RolloutError, RewardError, LearnerError, CheckpointError)
RUN_ERRORS = (DivergedError, WeightSyncError, InfrastructureError)
OWN_PACKAGES = ("conf", "learner", "orchestration", "rewards", "rollout")
EMPTY_GROUPS = ("experiment", "ablation")
"""Groups of settings from which nothing is chosen by default, so that the settings hold no key of theirs."""
EXIT_RUN_ERROR = 1
EXIT_USER_ERROR = 2
EXIT_STOPPED = 75
"""The run saved itself and left before its end, as sysexits' EX_TEMPFAIL: the same command continues."""
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else EXIT_USER_ERROR)
    verbs: dict[str, Callable[[Sequence[str]], int]] = {
        "plan": _plan,
        "train": _train,
        "submit": _submit,
        "data": _data,
        "evaluate": _evaluate,
        "report": _report,
        "score": _score,
        "config": _config,
    }
    verb = arguments[0]
    try:
        if verb not in verbs:
            raise ConfigError(f"{unknown_key(verb, list(verbs), '')} (see mixed-r1 --help)")
        sys.exit(verbs[verb](arguments[1:]))
    except USER_ERRORS as error:
        print(f"mixed-r1 {verb}: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except RUN_ERRORS as error:
        print(f"mixed-r1 {verb}: {error}", file=sys.stderr)
        sys.exit(EXIT_RUN_ERROR)
    except StoppedError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED if isinstance(error, InterruptedRunError) else EXIT_STOPPED)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OWN_PACKAGES:
            raise
        print(f"mixed-r1 {verb} needs {error.name}: pip install 'mixed-r1[train]' (see README)", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_RUN_ERROR)
    except KeyboardInterrupt:
        # Futures of what ended with us would tell of it when they are collected.
        logging.getLogger("asyncio").disabled = True
        continues = verb in ("data", "evaluate")
        print("\nstopped; the same command takes up what is done" if continues else "\nstopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def compose(overrides: Sequence[str], *, is_for_here: bool = True) -> dict[str, Any]:
    """Compose the YAML with overrides into a plain mapping.

    Args:
        overrides: key=value, as they were typed.
        is_for_here: make folders absolute; False leaves them as written, for another machine.

    Raises:
        ConfigError: an override that does not parse, whose key or file does not exist, or that holds a secret.
    """
    refuse_secret_overrides(overrides)
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_module(config_module="conf", version_base="1.3"):
        try:
            values = OmegaConf.to_container(hydra_compose("config", list(overrides)), resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            known = OmegaConf.to_container(hydra_compose("config"), resolve=True)
            raise ConfigError(_explain(error, overrides, known)) from error
    assert isinstance(values, dict)
    refuse_secrets(values)  # type: ignore[arg-type]
    for key in ("run_dir", "cache_dir"):
        if is_for_here and isinstance(values.get(key), str):
            values[key] = str(Path(values[key]).expanduser().absolute())
    return values  # type: ignore[return-value]


def _explain(error: Exception, overrides: Sequence[str], known: Any) -> str:
    """Turn a composition error into one line; an unknown key names its nearest neighbour."""
    for override in overrides:
        dotted = override.split("=", 1)[0].lstrip("+~")
        level, path = known, ""
        for part in dotted.split("."):
            if not isinstance(level, dict):
                break
            if part not in level and part not in EMPTY_GROUPS:
                return unknown_key(part, list(level), path)
            level, path = level.get(part), f"{path}.{part}" if path else part
        if isinstance(level, dict) and not override.startswith("+") and "={" in override:
            return f"{override}: names that a setting does not have yet are added with a plus sign: +{override}"
    return str(error).strip().splitlines()[0]


def _end_in_order() -> None:
    """Let Ctrl-C and a scheduler's SIGTERM unwind what is running; a shell starts background jobs without the first."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _plan(arguments: Sequence[str]) -> int:
    from orchestration.config.experiment import build_settings
    from orchestration.planning.command import print_plan

    overrides = [argument for argument in arguments if argument != "--json"]
    return print_plan(build_settings(compose(overrides)), as_json="--json" in arguments)


def _train(overrides: Sequence[str]) -> int:
    from orchestration.config.experiment import build_config

    config = build_config(compose(overrides))
    _end_in_order()
    from orchestration.job import run_training

    run_training(config)
    return 0


def _submit(overrides: Sequence[str]) -> int:
    values = compose(overrides, is_for_here=False)
    _end_in_order()
    from orchestration.submission.command import submit_run

    return submit_run(values, overrides)


DATA_USAGE = """usage: mixed-r1 data VERB [key=value ...]

  build    build the recipe of the settings, or find it built: mixed-r1 data build data=mixed_45k data.recipe.raw=/raw
  sources  list the raw formats that can be read, with what is known of their licences
  schema   list the columns of a dataset
"""


def _data(arguments: Sequence[str]) -> int:
    verb = arguments[0] if arguments else ""
    if verb in ("", "-h", "--help", "help"):
        print(DATA_USAGE, end="")
        return 0 if verb else EXIT_USER_ERROR
    if verb not in ("build", "sources", "schema"):
        raise ConfigError(f"{unknown_key(verb, ['build', 'sources', 'schema'], '')} (see mixed-r1 data --help)")
    if verb == "sources":
        from orchestration.data.sources.registry import describe

        print(describe())
        return 0
    if verb == "schema":
        from rollout.schema import describe as describe_schema

        print(describe_schema())
        return 0
    from orchestration.config.experiment import build_config

    config = build_config(compose(arguments[1:]), is_for_training=False)
    _end_in_order()
    if config.data.recipe is None:
        raise ConfigError("the settings name no recipe; choose one: mixed-r1 data build data=demo")
    from orchestration.data.command import build_from_config
    from orchestration.inputs import model_folder

    dataset = build_from_config(config, model_folder(config))
    print("\n".join(str(path) for path in sorted(dataset.root.iterdir())))
    return 0


def _evaluate(overrides: Sequence[str]) -> int:
    from dataclasses import fields

    from orchestration.config.experiment import build_config
    from orchestration.evaluation.config import EvaluateConfig

    own = {field.name for field in fields(EvaluateConfig)}
    settings = [f"evaluate.{item}" if item.split("=", 1)[0] in own else item for item in overrides]
    config = build_config(compose(settings), is_for_training=False)
    _end_in_order()
    from orchestration.evaluation.command import run_evaluation

    run_evaluation(config)
    return 0


def _report(overrides: Sequence[str]) -> int:
    from orchestration.config.experiment import build_config
    from orchestration.persistence.state import RunFolder
    from orchestration.report.page import write_report

    folder = RunFolder(build_config(compose(overrides), is_for_training=False).run_path)
    write_report(folder)
    print(f"wrote {folder.report}")
    return 0


def _score(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="mixed-r1 score",
        description="Score responses without a GPU. A row holds id, task, response, answer and, where they matter, "
        "options, image_size, coord, input_size, answer_type, source, truncated, guards. Exit code 3: some rows were "
        "bad; 4: a value differs from what its row expects.",
    )
    parser.add_argument("input", type=Path, help="rows as JSON lines or .parquet")
    parser.add_argument("-o", "--output", type=Path, help="write every row with its reward as JSON lines; - for stdout")
    parser.add_argument("--embeddings", type=Path, help="checkpoint whose tokenizer and embedding table BMAS uses")
    parser.add_argument("--preset", default="default", help="conf/reward/*.yaml: default or paper")
    parser.add_argument("--explain", metavar="ID", help="say how this one row is read")
    parser.add_argument("overrides", nargs="*", help="settings, such as reward.chart.tolerance=0.02")
    chosen = parser.parse_intermixed_args(arguments)
    from orchestration.config.strict import build
    from orchestration.score.command import ScoreCommand, score_file
    from rewards.config import RewardConfig

    values = compose([f"reward={chosen.preset}", *chosen.overrides])
    command = ScoreCommand(
        source=chosen.input, output=chosen.output, embeddings=chosen.embeddings, explain=chosen.explain
    )
    return score_file(command, build(RewardConfig, values["reward"], "reward"))


def _config(overrides: Sequence[str]) -> int:
    import yaml

    print(yaml.safe_dump(compose(overrides), sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    main()
