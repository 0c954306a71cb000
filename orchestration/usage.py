"""What `mixed-r1 --help`, `mixed-r1 VERB --help` and `mixed-r1 --version` print."""

import importlib.metadata
import textwrap
from collections.abc import Sequence

from orchestration.settings.describe import explain, meaning
from orchestration.storage.commit import project_commit

USAGE = """usage: mixed-r1 VERB [key=value ...]

  plan     say what a run needs and whether it fits, before anything is reserved; --json; exit code 3: it does not fit
  check    test engines, learner, links and storage on the run's own machines; exit code 1: a fault
  train    train, or continue the run in run_dir
  submit   train as a job of a Ray cluster, follow it, and submit it again where that helps
  data     look at rows of your own, build a dataset (mixed-r1 data --help); exit code 3: a source lost rows
  evaluate score a checkpoint on a dataset: checkpoint=... data=...
  report   write run_dir/report.html again from what the run recorded
  score    score a file of responses, without a GPU (mixed-r1 score --help)
  config   print the composed settings

Settings come from the YAML of the package `conf`; key=value overrides one, group=name chooses a file, and of two values
for one key the last counts:
  mixed-r1 train rollout.engines=2 learner.num_ranks=2 run_dir=runs/two_by_two
  mixed-r1 train experiment=cpu_quick
--config FILE lays settings of your own over the defaults, such as a run's config.json, and --config-dir FOLDER adds
groups of your own, so that experiment=mine takes FOLDER/experiment/mine.yaml.
What holds a space, a quote or another sign of the shell is put in quotes: 'rollout.system_prompt=Think, then answer.'

mixed-r1 VERB --help explains a verb, mixed-r1 config --help KEY a setting, and mixed-r1 --version prints version and
commit.
"""

HELP: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "plan": (
        "mixed-r1 plan [key=value ...] [--json]",
        "Say where every actor of a run would be placed, what fills each GPU, which rows would be refused and how long "
        "a step may take. Nothing is started and no weights are needed. Exit code 3: it does not fit.",
        ("model.path", "data.train", "cluster.nodes", "plan.assume.prompt_tokens", "plan.assume.completion_frac"),
    ),
    "check": (
        "mixed-r1 check [key=value ...]",
        "Start the engines and learner ranks of a run on its own machines, take one step on prompts of its own, and "
        "compare: versions, links, every tensor, prompts, pictures, logprobs, memory, storage. No dataset is needed. "
        "The table is in run_dir/check/check.json too. Exit code 1: a fault was found.",
        ("model.path", "check.random_weights", "rollout.engines", "learner.num_ranks", "cluster.layout",
         "cluster.address"),
    ),
    "train": (
        "mixed-r1 train [key=value ...]",
        "Train, or continue the run in run_dir; without settings, a tiny model on drawn tasks, on this machine.",
        ("model.path", "data.train", "data.held_out", "data.columns", "training.num_steps", "training.groups_per_step",
         "training.max_staleness", "rollout.engines", "rollout.sampling.group_size", "learner.num_ranks"),
    ),
    "submit": (
        "mixed-r1 submit cluster=ray [key=value ...]",
        "Train as a job of a Ray cluster: the settings of train, with folders written from the root.",
        ("submit.address", "submit.python", "submit.follow", "submit.on_interrupt", "submit.if_running",
         "submit.max_attempts", "submit.require_environment"),
    ),
    "data": (
        "mixed-r1 data look|build|sources|schema [key=value ...]",
        "look PATH: say what the columns of a file are taken for, and show its first row as it will be asked. build: "
        "build the recipe of the settings, or the files of data.train, or find it built. sources: list the raw formats "
        "that can be read, with what is known of their licences. schema: list the columns of a dataset.",
        (),
    ),
    "data look": (
        "mixed-r1 data look PATH [key=value ...]",
        "Say which files a path names, what their columns are taken for and why, which tasks the first rows are, and "
        "what is uncertain; show the first row as it will be asked. A guess is corrected by data.columns.KEY=COLUMN, "
        "as in data.columns.answer=solution data.columns.task=chart, here and, with data.train=PATH, for plan, data "
        "build and train. PATH is a file, a folder, FOLDER:SPLIT or ORG/NAME[@REVISION][:SPLIT] of the Hugging Face "
        "Hub. Forms, keys and examples: orchestration/data/own_data.md.",
        ("data.columns", "data.rows", "data.image_roots", "data.held_out_share", "model.path"),
    ),
    "data build": (
        "mixed-r1 data build data=RECIPE|data.train=PATH [key=value ...]",
        "Build a recipe from its raw sources, or the files of data.train, or find it built, and print its sources and "
        "files: mixed-r1 data build data=mixed_45k data.recipe.raw=/raw model=qwen2_5_vl "
        "model.path=/models/Qwen2.5-VL-7B-Instruct. Exit code 3: the dataset is written, and a source yields no "
        "row, has a broken file or lost more than a fifth of its rows.",
        ("data.train", "data.recipe.raw", "data.recipe.out", "data.recipe.num_workers", "data.recipe.chunk_rows",
         "data.recipe.allow_loss", "model.path"),
    ),
    "data sources": ("mixed-r1 data sources", "List the raw formats that can be read.", ()),
    "data schema": ("mixed-r1 data schema", "List the columns of a dataset.", ()),
    "evaluate": (
        "mixed-r1 evaluate checkpoint=FOLDER [key=value ...]",
        "Score a checkpoint on a dataset, with intervals, a page, and predictions for other toolkits. The settings of "
        "`evaluate` need no prefix here.",
        ("evaluate.checkpoint", "evaluate.data", "evaluate.preset", "evaluate.num_completions", "evaluate.pass_ks",
         "evaluate.max_samples", "evaluate.out", "evaluate.against"),
    ),
    "report": (
        "mixed-r1 report run_dir=FOLDER",
        "Write report.html of a run again from what it recorded; also while it runs.",
        ("run_dir",),
    ),
    "config": (
        "mixed-r1 config [key=value ...]",
        "Print the composed settings as YAML. With --help and the name of a setting or of a group of them, say what "
        "they mean: mixed-r1 config --help training",
        (),
    ),
}  # fmt: skip
"""By verb: usage, text, and a few of the settings that it reads."""


def help_text(verb: str, keys: Sequence[str]) -> str:
    """Return what `mixed-r1 VERB --help [KEY ...]` prints: the verb's own text, or what the keys mean.

    Raises:
        ConfigError: a key is not a setting.
    """
    if keys:
        return "\n\n".join(explain(key) for key in keys) + "\n"
    usage, text, some = HELP[verb]
    parts = [f"usage: {usage}", textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)]
    if some:
        named = [key.removeprefix("evaluate.") if verb == "evaluate" else key for key in some]
        width = max(map(len, named))
        parts.append(
            "\n".join(
                textwrap.fill(
                    meaning(key), 120, initial_indent=f"  {name:{width}}  ", subsequent_indent=" " * (width + 4)
                )
                for key, name in zip(some, named, strict=True)
            )
        )
    parts.append("mixed-r1 config prints every setting, mixed-r1 config --help KEY says what one means.")
    return "\n\n".join(parts) + "\n"


def version_text() -> str:
    """Return the version and, in a checkout, the commit."""
    try:
        version = importlib.metadata.version("mixed-r1")
    except importlib.metadata.PackageNotFoundError:  # the code came with a job and is not installed
        version = "(not installed)"
    return f"mixed-r1 {version}, commit {project_commit() or 'unknown'}"
