"""Findings: reasons against a run, each with its key, its values and the remedy."""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from learner.config import SLOWER, runs_padded
from orchestration.cluster.layout import Layout
from orchestration.cluster.local_ray import StoreNeed
from orchestration.data.losses import find_losses, read_manifest, remedy
from orchestration.inputs.machine import Located
from orchestration.inputs.own_rewards import load_own_functions, try_own_functions
from orchestration.models.box_frame import family_frame, frame_fault
from orchestration.models.image_tokens import images_fault
from orchestration.models.shapes import ModelShape
from orchestration.plan.batches import BatchPlan, Lengths
from orchestration.plan.dataset import REASONS, PromptPlan, RoutingPlan
from orchestration.plan.engine_memory import undivided, widths
from orchestration.plan.records import Finding, error, warning
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.evaluation import MEAN, held_out_metrics
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.tracking import missing_packages
from orchestration.storage.run_folder import RunFolder, config_changes
from rewards.core.base import RewardError
from rewards.core.config import DEFAULT_FORMAT, RewardConfig
from rewards.core.envelope import instruction, unmentioned
from rollout.dataset import SampleTable
from rollout.errors import RolloutError

KEY = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+")
"""A dotted key; errors about settings begin with one."""

MAX_NAMED = 5
"""Changed settings that a finding names."""
LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/home", "/root", "/dev/shm")
"""Folders that are rarely shared between machines."""


def from_error(refusal: ConfigError | RewardError | RolloutError, default_key: str) -> Finding:
    """Return an error about the settings as a finding, under the key that its text names."""
    named = KEY.search(str(refusal))
    return error(named.group() if named else default_key, str(refusal))


def own_function_findings(
    config: RewardConfig, table: SampleTable | None = None, drawn: Sequence[int] = ()
) -> list[Finding]:
    """Load the reward functions of the user's, and try them on some references where there are rows.

    One that cannot be called, or has no value for any reference of a task and source, is an error; one that has some a
    warning.
    """
    found: list[Finding] = []
    try:
        load_own_functions(config)
        for trial in try_own_functions(config, table, drawn) if table is not None else ():
            finding = error if trial.is_refused else warning
            remedy = "correct the function, or leave these rows out"
            found.append(finding(f"reward.functions.{trial.function}", f"{trial}; {remedy}"))
    except RewardError as refusal:
        found.append(from_error(refusal, "reward.functions"))
    return found


def missing_folder(config: ExperimentConfig, folder: Path | None) -> Iterator[Finding]:
    """Warn if the model's folder is not on this machine, so that the plan uses only its stated sizes."""
    if config.model.folder is not None and folder is None:
        yield warning(
            "model.path",
            f"{config.model.folder} does not exist on this machine, so sizes are those of "
            "model.hf_config and its files are not checked; plan on the machine of the run too",
        )


def unused_findings(config: ExperimentConfig) -> Iterator[Finding]:
    """Warn of rewards that score nothing, and of held-out sets that are not on this machine."""
    for key in config.reward.unused():
        name = key.rpartition(".")[2]
        yield warning(key, f"no route or rule names it, so it scores nothing; for a task: reward.routes.TASK={name}")
    for name, one in config.evaluation.sets.items() if config.evaluation.enabled else ():
        if not Path(one.path).exists():
            yield warning(
                f"evaluation.sets.{name}.path",
                f"{one.path} does not exist on this machine, and `mixed-r1 train` refuses to start without it; build "
                "it (mixed-r1 data build) or correct the path",
            )


def tracker_findings(config: ExperimentConfig) -> Iterator[Finding]:
    """Refuse trackers that are not installed in this Python, or whose code cannot be loaded, if it can train at all."""
    if importlib.util.find_spec("ray") is None:
        return  # installed for plans alone
    for fault in missing_packages(config.trackers, config.tracking):
        yield error("trackers", fault)


def run_folder_refusal(config: ExperimentConfig) -> str:
    """Return why `mixed-r1 train` would refuse run_dir: it holds a run of other settings; empty if it would not."""
    folder = RunFolder(config.run_path)
    if config.allow_config_change or not folder.config.is_file():
        return ""
    try:
        changes = config_changes(folder, config)
    except ResumeError as unreadable:
        return str(unreadable)
    changed = [key for key, change in changes.items() if change.shapes_result]
    if not changed:
        return ""
    more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
    return (
        f"{folder.root} holds a run of other settings ({', '.join(changed[:MAX_NAMED])}{more}), so `mixed-r1 train` "
        "would refuse to start there; use another run_dir, restore the settings, or set allow_config_change=true"
    )


def shape_findings(config: ExperimentConfig, shape: ModelShape, max_positions: int | None) -> Iterator[Finding]:
    """Find a model without a family, and engine settings above limits; `max_positions` is None if none is stated."""
    engine = config.rollout.engine
    width = engine.tensor_parallel_size
    if config.model.own_family is None and runs_padded(shape.family):
        yield warning("model.path", SLOWER.format(shape.family))
    if left := undivided(shape, width):
        named = ", ".join(f"{number} {name}" for name, number in left.items())
        yield error(
            "rollout.engine.tensor_parallel_size",
            f"{width} workers cannot share {named}; use {' or '.join(map(str, widths(shape)))}",
        )
    if max_positions is not None and engine.max_model_len > max_positions:
        yield error(
            "rollout.engine.max_model_len",
            f"{engine.max_model_len:,} tokens, and the model supports {max_positions:,} "
            f"(max_position_embeddings); use at most {max_positions:,}",
        )


def batch_findings(config: ExperimentConfig, batches: BatchPlan, lengths: Lengths) -> Iterator[Finding]:
    """Find batches that leave workers idle, or exceed the token budget."""
    minibatches, ranks = config.algorithm.num_minibatches, batches.ranks
    if batches.groups < minibatches:
        yield error(
            "algorithm.num_minibatches",
            f"{minibatches} minibatches of {batches.groups} groups leave some minibatches empty; use at most "
            f"{batches.groups}",
        )
    elif batches.groups % (minibatches * ranks) and batches.groups % ranks == 0:
        yield warning(
            "algorithm.num_minibatches",
            f"{batches.groups} groups over {minibatches} updates and {ranks} ranks do not divide evenly, and ranks "
            f"wait for the one with most groups; make training.groups_per_step a multiple of {minibatches * ranks}",
        )
    if config.rollout.engines > batches.groups_in_flight:
        yield warning(
            "rollout.engines",
            f"{config.rollout.engines} engines share {batches.groups_in_flight} groups in flight, and a group is "
            "never split: some engines are idle; lower it, or raise training.groups_per_step",
        )
    longest = lengths.prompt_most + lengths.completion_most - 1
    if batches.at_most.largest_micro_batch > config.learner.micro_batch_tokens:
        yield warning(
            "learner.micro_batch_tokens",
            f"{config.learner.micro_batch_tokens:,} tokens, and a prompt with one completion may have "
            f"{longest:,}: it forms a micro-batch of its own, which must fit in memory; raise it to "
            f"{longest:,}, or lower rollout.engine.max_model_len",
        )


def prompt_findings(config: ExperimentConfig) -> Iterator[Finding]:
    """Warn if the system prompt never mentions what marks an answer; an empty one passes with the usual tags."""
    prompt, form = config.rollout.system_prompt, config.reward.format
    missing = unmentioned(prompt, form)
    if missing and (prompt or instruction(form) != instruction(DEFAULT_FORMAT)):
        yield warning(
            "rollout.system_prompt",
            f"it does not mention {' and '.join(missing)}, by which reward.format.style={form.style} reads and pays "
            "answers; put {format} where the prompt should ask for that, or say it in words of your own",
        )


def image_findings(shape: ModelShape, files: Sequence[Path]) -> Iterator[Finding]:
    """Refuse rows with images where the model takes none."""
    for path in files:
        if fault := images_fault(shape, path):
            yield error("data", fault)


def frame_findings(config: ExperimentConfig, files: Sequence[Path]) -> Iterator[Finding]:
    """Refuse rows with boxes whose frame is not known, and warn of a frame that is not the family's."""
    if fault := frame_fault(config, (pair for path in files for pair in SampleTable(path).tasks_and_sources())):
        yield error("model.coord_mode", fault)
    known, used = family_frame(config.model), config.model.coord_mode
    if config.model.path is None and config.model.tiny is not None:
        return  # the demo teaches its tiny model the frame of the settings
    if known is not None and used not in (None, known):
        yield warning(
            "model.coord_mode",
            f"it is {used}, and models of this family were trained to write boxes in {known}; set it to null, unless "
            "this one was trained otherwise",
        )


def best_findings(config: ExperimentConfig, held_out: Path | None) -> Iterator[Finding]:
    """Refuse a metric of the best checkpoint of which its rows, if they are there, never have a value."""
    best = config.training.keep_best
    metric = held_out_metrics(config.reward, config.evaluation).get(best) if isinstance(best, str) else None
    if metric is None or metric.function == MEAN:
        return
    key, rows = "data.held_out", held_out
    if metric.set_name is not None:
        key = f"evaluation.sets.{metric.set_name}.path"
        rows = Path(config.evaluation.sets[metric.set_name].path)
    if rows is None or not rows.exists():
        return
    pairs = {pair for pair in SampleTable(rows).tasks_and_sources() if config.reward.is_routed(*pair)}
    functions = sorted({config.reward.route(*pair).function for pair in pairs})
    if metric.function not in functions:
        yield error(
            "training.keep_best",
            f"{best} never has a value: {metric.function} scores no row of {key} ({rows}); its rows are scored by "
            f"{', '.join(functions)}",
        )


def placement_findings(config: ExperimentConfig, layout: Layout | None) -> Iterator[Finding]:
    """Find ranks that are spread unevenly over machines, and unknown kinds of GPU."""
    if layout is None:
        return
    on = [sum(actor.machine == machine for actor in layout.of("learner")) for machine in layout.learner_machines()]
    if len(set(on)) > 1:
        yield warning(
            "learner.num_ranks",
            f"{config.learner.num_ranks} ranks are split {', '.join(map(str, on))} over the machines; the same number "
            f"on each keeps more of their traffic within machines: use a multiple of {len(on)}",
        )
    known = config.plan.gpus
    unknown = sorted({machine.gpu or "null" for machine in layout.machines if machine.gpus} - set(known))
    if unknown:
        yield warning(
            "cluster.nodes",
            f"the kind of GPU {', '.join(unknown)} is not one of plan.gpus ({', '.join(known)}), so memory "
            "and time cannot be computed; name one of them, or add yours to plan.gpus",
        )


def folder_findings(config: ExperimentConfig, num_machines: int) -> Iterator[Finding]:
    """Find folders of a run on several machines that are probably not shared between them."""
    if config.cluster.address is None or num_machines < 2:
        return
    folders = {"run_dir": config.run_dir, "cache_dir": config.cache_dir}
    if config.training.checkpoint_dir is not None:
        folders["training.checkpoint_dir"] = config.training.checkpoint_dir
    for key, folder in folders.items():
        if "://" not in folder and any(Path(folder).is_relative_to(local) for local in LOCAL_FOLDERS):
            yield warning(
                key,
                f"{folder} is usually local to one machine, and actors on {num_machines} machines read and "
                "write it; use shared storage",
            )


def data_findings(config: ExperimentConfig, prompts: PromptPlan | None, routing: RoutingPlan) -> Iterator[Finding]:
    """Find rows that the run refuses, truncates or cannot score."""
    if routing.unrouted:
        worst = max(routing.unrouted, key=lambda row: row.num_rows)
        yield error(
            "reward.routes",
            f"{sum(row.num_rows for row in routing.unrouted):,} rows have no reward function, most of task "
            f"{worst.task} of {worst.source}; add their tasks to reward.routes or reward.rules, or leave them out",
        )
    if prompts is None:
        return
    if prompts.doubt:
        yield warning("data.train", f"the prompt lengths in the dataset {prompts.doubt}")
    limit, share = config.training.max_drop_frac, prompts.num_refused / max(1, prompts.num_seen)
    for outlier in prompts.outliers:
        report = error if outlier.is_refused and share > limit else warning
        yield report(
            _key_of(outlier.reason),
            f"{outlier.num_rows:,} of {prompts.num_seen:,} rows: {REASONS[outlier.reason]}, such as "
            f"{outlier.examples[0]}; " + _remedy(outlier.reason, share, limit),
        )
    if prompts.num_unmeasured and config.model.folder is None:
        yield warning(
            "model.path",
            f"the prompts of {prompts.num_unmeasured:,} rows are not measured; set it to the model's folder, "
            "whose tokenizer and chat template are needed",
        )
    if prompts.num_rows < config.training.groups_per_step:
        yield warning(
            "training.groups_per_step",
            f"a step takes {config.training.groups_per_step} prompts and there are {prompts.num_rows} rows, so "
            "rows repeat within a step; lower it",
        )


def loss_findings(config: ExperimentConfig, located: Located) -> Iterator[Finding]:
    """Find sources of a built dataset that lost rows; errors where the run would refuse the recipe's result."""
    recipe = config.data.recipe if config.data.train is None else None
    folders = dict.fromkeys(path.parent for path in (located.train, located.held_out) if path is not None)
    for folder in folders:
        for loss in find_losses(read_manifest(folder) or {}, recipe.allow_loss if recipe else ()):
            if recipe is None:
                yield warning("data.train", f"the dataset in {folder} lacks rows of {loss.message}")
            else:
                yield error("data.recipe.allow_loss", f"{loss.message}; accept it with {remedy([loss.source])}")


def _key_of(reason: str) -> str:
    if reason == "too_many_images":
        return "rollout.engine.max_images_per_prompt"
    if reason in ("prompt_too_long", "completion_cut"):
        return "rollout.engine.max_model_len"
    return "data.train"


def _remedy(reason: str, share: float, limit: float) -> str:
    if reason == "completion_cut":
        return "raise it, or lower rollout.sampling.max_completion_tokens or model.max_pixels"
    smaller = "; a lower model.max_pixels shortens images" if reason == "prompt_too_long" else ""
    if share > limit:
        return (
            f"the run drops them, {share:.1%} of all, and stops above training.max_drop_frac={limit:g}; change the "
            f"setting, or build the data again{smaller}"
        )
    return f"the run drops and counts them{smaller}"


def store_findings(config: ExperimentConfig, need: StoreNeed) -> Iterator[Finding]:
    """Warn if the groups in flight do not fit the object store of a Ray that the run starts itself."""
    store = config.cluster.object_store_bytes
    if config.cluster.address is None and need.total_bytes > store:
        yield warning(
            "cluster.object_store_bytes",
            f"{need.num_groups} groups of {need.group_bytes / 1e6:.2f} MB may be in flight, "
            f"{need.total_bytes / 1e9:.2f} GB in total, and it holds {store / 1e9:.2f} GB; the rest spills to "
            "disk, which is slower: raise it, or lower training.groups_per_step",
        )
