"""The command `mixed-r1`: its verbs, and the exit codes of its errors."""

import argparse
import atexit
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__" and Path(sys.path[0]).absolute() == Path.cwd() != Path(__file__).parents[1]:
    # `python -m` puts the working directory first, where a folder `rewards` or a file torch.py would replace ours.
    del sys.path[0]

from conf.own_code import OwnCodeError
from learner.errors import CheckpointError, DivergedError, LearnerError
from orchestration.settings.composition import compose
from orchestration.settings.errors import (
    ConfigError,
    DataError,
    InfrastructureError,
    InterruptedRunError,
    LossError,
    ResumeError,
    StoppedError,
)
from orchestration.settings.files import read_arguments
from orchestration.settings.strict import unknown_key
from orchestration.usage import USAGE, help_text, version_text
from rewards.core.base import RewardError
from rollout.errors import RolloutError, WeightSyncError

USER_ERRORS = (
    OwnCodeError,
    ConfigError,
    DataError,
    ResumeError,
    RolloutError,
    RewardError,
    LearnerError,
    CheckpointError,
)
RUN_ERRORS = (DivergedError, WeightSyncError, InfrastructureError)
OWN_PACKAGES = ("conf", "learner", "orchestration", "rewards", "rollout")
DATA_VERBS = ("look", "build", "sources", "schema")
EXIT_RUN_ERROR = 1
EXIT_USER_ERROR = 2
EXIT_LOSS = 3
"""A dataset is written, and a source of its recipe lost rows that it may not lose."""
EXIT_STOPPED = 75
"""The run saved itself and stopped before its end (EX_TEMPFAIL of sysexits): the same command continues it."""
EXIT_INTERRUPTED = 130


def command() -> NoReturn:
    """Run `main` as the whole of a process: the entry point of `mixed-r1`.

    Threads of gRPC in Ray outlive `ray.shutdown`, and while the interpreter is torn down one of them now and then jumps
    into freed memory: exit code 139 of a run that had done all its work. So a process that used Ray runs its exit
    functions, flushes what it printed, and exits without that teardown.
    """
    try:
        main()
        code = 0
    except SystemExit as ending:
        if not isinstance(ending.code, int):
            raise
        code = ending.code
    if "ray" in sys.modules:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else EXIT_USER_ERROR)
    if arguments[0] in ("--version", "version"):
        print(version_text())
        sys.exit(0)
    verbs: dict[str, Callable[[Sequence[str]], int]] = {
        "plan": _plan,
        "check": _check,
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
            raise ConfigError(f"{unknown_key(verb, list(verbs), '', kind='verb')} (see mixed-r1 --help)")
        if verb not in ("data", "score") and {"-h", "--help"} & set(arguments):
            asked = read_arguments([argument for argument in arguments[1:] if argument not in ("-h", "--help")])
            keys = [argument.partition("=")[0] for argument in asked.overrides]
            print(help_text(verb, keys), end="")
            sys.exit(0)
        sys.exit(verbs[verb](arguments[1:]))
    except LossError as error:
        print(f"mixed-r1 {verb}: {error}", file=sys.stderr)
        sys.exit(EXIT_LOSS)
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
        print(
            f"mixed-r1 {verb} needs {error.name}: pip install '.[train]' in the checkout (see README)", file=sys.stderr
        )
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:
        # The reader of our output has closed it (`| head`); what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_RUN_ERROR)
    except KeyboardInterrupt:
        # asyncio would log the futures of actors that ended with this process.
        logging.getLogger("asyncio").disabled = True
        continues = verb in ("data", "evaluate")
        print("\nstopped; the same command continues from what is done" if continues else "\nstopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _end_in_order() -> None:
    """Raise KeyboardInterrupt on SIGTERM too, and on SIGINT, which shells ignore for background jobs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _plan(arguments: Sequence[str]) -> int:
    from orchestration.plan.command import print_plan
    from orchestration.settings.experiment import build_settings

    overrides = [argument for argument in arguments if argument != "--json"]
    return print_plan(build_settings(compose(overrides)), as_json="--json" in arguments)


def _check(overrides: Sequence[str]) -> int:
    from orchestration.inputs.machine import build_config

    config = build_config(compose(overrides), is_for_check=True)
    _end_in_order()
    from orchestration.check.command import run_check
    from orchestration.inputs.machine import Located
    from orchestration.inputs.prepare import model_folder
    from orchestration.plan.learner_memory import planned_bytes
    from orchestration.plan.plan import check_plan

    model = model_folder(config)
    check_plan(config, Located(train=None, held_out=None, note=""))
    return run_check(config, model, planned_bytes=planned_bytes(config, model))


def _train(overrides: Sequence[str]) -> int:
    from orchestration.inputs.machine import build_config

    config = build_config(compose(overrides))
    _end_in_order()
    from orchestration.job import run_training

    run_training(config)
    return 0


def _submit(overrides: Sequence[str]) -> int:
    values = compose(overrides, is_for_here=False)
    _end_in_order()
    from orchestration.submit.command import submit_run

    return submit_run(values, overrides)


def _data(arguments: Sequence[str]) -> int:
    verb = arguments[0] if arguments else ""
    if verb in ("", "-h", "--help", "help"):
        print(help_text("data", []), end="")
        return 0 if verb else EXIT_USER_ERROR
    if verb not in DATA_VERBS:
        raise ConfigError(f"{unknown_key(verb, list(DATA_VERBS), '', kind='verb')} (see mixed-r1 data --help)")
    if {"-h", "--help"} & set(arguments):
        print(help_text(f"data {verb}", []), end="")
        return 0
    if verb not in ("build", "look") and len(arguments) > 1:
        raise ConfigError(f"mixed-r1 data {verb} takes no arguments; got {arguments[1]!r}")
    if verb == "sources":
        from orchestration.data.sources.registry import describe

        print(describe())
        return 0
    if verb == "schema":
        from rollout.dataset import describe as describe_schema

        print(describe_schema())
        return 0
    return _data_look(arguments[1:]) if verb == "look" else _data_build(arguments[1:])


def _data_look(arguments: Sequence[str]) -> int:
    if not arguments or ("=" in arguments[0] and not Path(arguments[0]).exists()):
        raise ConfigError("mixed-r1 data look needs a file or a folder first: mixed-r1 data look PATH [key=value ...]")
    from orchestration.data.look import look_lines
    from orchestration.inputs.hub import with_hub_folders
    from orchestration.inputs.machine import known_model_folder
    from orchestration.inputs.own_data import find
    from orchestration.models.box_frame import with_box_frame
    from orchestration.settings.experiment import build_settings

    path, *overrides = arguments
    config = with_box_frame(with_hub_folders(build_settings(compose([*overrides, f"data.train={path}"]))))
    for line in look_lines(find("train", config.data), config, known_model_folder(config)):
        print(line)
    return 0


def _data_build(overrides: Sequence[str]) -> int:
    from orchestration.inputs.machine import build_config
    from orchestration.settings.experiment import build_settings, check_inputs_named

    values = compose(overrides)
    settings = build_settings(values)
    check_inputs_named(settings, is_build=settings.data.train is None)
    config = build_config(values, is_for_training=False)
    if config.data.train is not None:
        raise ConfigError(f"data.train={config.data.train} is built already; data build takes a recipe or raw files")
    _end_in_order()
    from orchestration.data.build import build_from_config
    from orchestration.data.manifest import rejection_lines
    from orchestration.inputs.prepare import model_folder

    dataset = build_from_config(config, model_folder(config), print, is_told_again=True)
    if lines := rejection_lines(dataset.root):
        print("left out (examples in page.html):")
        print("\n".join(f"  {line}" for line in lines))
    print("\n".join(str(path) for path in sorted(dataset.root.iterdir())))
    return 0


def _evaluate(overrides: Sequence[str]) -> int:
    from dataclasses import fields, replace

    from orchestration.evaluate.checkpoint import build_evaluation, run_of, settings_of_run
    from orchestration.settings.commands import EvaluateConfig

    own = {field.name for field in fields(EvaluateConfig)}
    given = read_arguments(overrides)
    prefixed = (f"evaluate.{item}" if item.split("=", 1)[0] in own else item for item in given.overrides)
    settings = replace(given, overrides=tuple(prefixed)).written()
    values, base = compose(settings), None
    if (run := run_of(values["evaluate"]["checkpoint"])) is not None:
        base = settings_of_run(run, compose([]))
        values = compose(settings, base=base)
    config = build_evaluation(values, base)
    _end_in_order()
    from orchestration.inputs.hub import with_hub_folders

    config = with_hub_folders(config)
    from orchestration.evaluate.command import run_evaluation

    run_evaluation(config, run)
    return 0


def _report(overrides: Sequence[str]) -> int:
    from orchestration.settings.experiment import build_settings
    from orchestration.storage.run_folder import open_run, read_config
    from orchestration.train.report import write_report

    folder = open_run(build_settings(compose(overrides)).run_path)
    read_config(folder)  # a copy that was cut short is refused before anything is written
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
    parser.add_argument("input", type=_path, help="rows as JSON lines or .parquet")
    parser.add_argument(
        "-o", "--output", type=_path, help="write every row with its reward as JSON lines; - for stdout"
    )
    parser.add_argument("--embeddings", type=_path, help="checkpoint whose tokenizer and embedding table BMAS uses")
    parser.add_argument("--preset", help="conf/reward/*.yaml: default or paper")
    parser.add_argument("--config", metavar="FILE", help="settings in a file, such as a run's config.json")
    parser.add_argument("--config-dir", metavar="FOLDER", help="groups of YAML files of your own: FOLDER/reward/*.yaml")
    parser.add_argument("--explain", metavar="ID", help="say how this one row is read")
    parser.add_argument(
        "--against", metavar="COLUMN", help="compare with another verdict of each row: true, false, or 0 to 1"
    )
    parser.add_argument("overrides", nargs="*", help="settings, such as reward.chart.tolerance=0.02")
    chosen = parser.parse_intermixed_args(arguments)
    from orchestration.score.command import score_file
    from orchestration.settings.strict import build
    from rewards.core.config import RewardConfig

    options = {"--config": chosen.config, "--config-dir": chosen.config_dir, "reward": chosen.preset}
    values = compose([*(f"{key}={value}" for key, value in options.items() if value is not None), *chosen.overrides])
    return score_file(
        chosen.input,
        build(RewardConfig, values["reward"], "reward"),
        output=chosen.output,
        embeddings=chosen.embeddings,
        explain=chosen.explain,
        against=chosen.against,
    )


def _path(text: str) -> Path:
    """Return the path of an argument; ~ is the home folder, as in settings."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, perhaps an unset variable of the shell; write a path")
    return Path(text).expanduser()


def _config(overrides: Sequence[str]) -> int:
    import json
    from dataclasses import asdict

    import yaml

    from orchestration.settings.experiment import build_settings

    values = json.loads(json.dumps(asdict(build_settings(compose(overrides)))))
    print(yaml.safe_dump(values, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    command()
