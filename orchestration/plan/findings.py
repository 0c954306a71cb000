"""Findings: reasons against a run, each with its key, its values and the remedy."""

import re
from collections.abc import Iterator
from pathlib import Path

from orchestration.cluster.layout import Layout
from orchestration.cluster.local_ray import StoreNeed
from orchestration.models.shapes import ModelShape
from orchestration.plan.batches import BatchPlan, Lengths
from orchestration.plan.dataset import REASONS, PromptPlan, RoutingPlan
from orchestration.plan.engine_memory import undivided, widths
from orchestration.plan.records import Finding, error, warning
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from rollout.errors import RolloutError

KEY = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+")
"""A dotted key, with which every error about settings begins."""

LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/home", "/root", "/dev/shm")
"""Folders that are rarely the same on two machines."""


def from_error(refusal: ConfigError | RolloutError, default_key: str) -> Finding:
    """Return a refusal of the settings as a finding; its text names its key."""
    named = KEY.search(str(refusal))
    return error(named.group() if named else default_key, str(refusal))


def missing_folder(config: ExperimentConfig, folder: Path | None) -> Iterator[Finding]:
    """Warn where the model's folder is not on this machine, so that only its stated sizes are planned."""
    if config.model.folder is not None and folder is None:
        yield warning(
            "model.path",
            f"{config.model.folder} is not there, so sizes are those of model.hf_config and nothing is known "
            "of its files; plan where the run will be as well",
        )


def shape_findings(config: ExperimentConfig, shape: ModelShape, max_positions: int | None) -> Iterator[Finding]:
    """Find limits of the model that the engine's settings break; `max_positions` is None where its config has none."""
    engine = config.rollout.engine
    width = engine.tensor_parallel_size
    if left := undivided(shape, width):
        named = ", ".join(f"{number} {name}" for name, number in left.items())
        yield error(
            "rollout.engine.tensor_parallel_size",
            f"{width} workers cannot share {named}; use {' or '.join(map(str, widths(shape)))}",
        )
    if max_positions is not None and engine.max_model_len > max_positions:
        yield error(
            "rollout.engine.max_model_len",
            f"{engine.max_model_len:,} tokens, and the model was made for {max_positions:,} "
            f"(max_position_embeddings); use at most that",
        )


def batch_findings(config: ExperimentConfig, batches: BatchPlan, lengths: Lengths) -> Iterator[Finding]:
    """Find batches that leave workers idle, or exceed the token budget."""
    minibatches, ranks = config.algorithm.num_minibatches, batches.ranks
    if batches.groups < minibatches:
        yield error(
            "algorithm.num_minibatches",
            f"{minibatches} minibatches of {batches.groups} groups leave some without a group; use at most "
            f"{batches.groups}",
        )
    elif batches.groups % (minibatches * ranks) and batches.groups % ranks == 0:
        yield warning(
            "algorithm.num_minibatches",
            f"{batches.groups} groups over {minibatches} updates and {ranks} ranks come out uneven, and ranks "
            f"wait for the fullest; make training.groups_per_step a multiple of {minibatches * ranks}",
        )
    if config.rollout.engines > batches.groups_in_flight:
        yield warning(
            "rollout.engines",
            f"{config.rollout.engines} engines share {batches.groups_in_flight} groups on their way, and a "
            "group stays whole: some have nothing to do; lower it, or raise training.groups_per_step",
        )
    longest = lengths.prompt_most + lengths.completion_most - 1
    if batches.at_most.largest_micro_batch > config.learner.micro_batch_tokens:
        yield warning(
            "learner.micro_batch_tokens",
            f"{config.learner.micro_batch_tokens:,} tokens, and a prompt with one completion may have "
            f"{longest:,}: it stands alone in a micro-batch of that size, and memory must hold it; raise it to "
            f"{longest:,}, or lower rollout.engine.max_model_len",
        )


def placement_findings(config: ExperimentConfig, layout: Layout | None) -> Iterator[Finding]:
    """Find ranks that are unevenly spread, and kinds of GPU that are not known."""
    if layout is None:
        return
    on = [sum(seat.machine == machine for seat in layout.of("learner")) for machine in layout.learner_machines()]
    if len(set(on)) > 1:
        yield warning(
            "learner.num_ranks",
            f"{config.learner.num_ranks} ranks stand {', '.join(map(str, on))} to a machine; the same number "
            f"on each keeps more of their traffic inside machines: use a multiple of {len(on)}",
        )
    known = config.plan.gpus
    unknown = sorted({machine.gpu or "null" for machine in layout.machines if machine.gpus} - set(known))
    if unknown:
        yield warning(
            "cluster.nodes",
            f"the kind of GPU {', '.join(unknown)} is not one of plan.gpus ({', '.join(known)}), so neither "
            "memory nor time can be told; name one of them, or add yours to plan.gpus",
        )


def folder_findings(config: ExperimentConfig, num_machines: int) -> Iterator[Finding]:
    """Find folders of a run on several machines that are probably local to one of them."""
    if config.cluster.address is None or num_machines < 2:
        return
    folders = {"run_dir": config.run_dir, "cache_dir": config.cache_dir}
    if config.training.checkpoint_dir is not None:
        folders["training.checkpoint_dir"] = config.training.checkpoint_dir
    for key, folder in folders.items():
        if "://" not in folder and any(Path(folder).is_relative_to(local) for local in LOCAL_FOLDERS):
            yield warning(
                key,
                f"{folder} is a folder that other machines seldom see, and actors on {num_machines} machines "
                "read and write there; put it on storage that they share",
            )


def data_findings(config: ExperimentConfig, prompts: PromptPlan | None, routing: RoutingPlan) -> Iterator[Finding]:
    """Find rows that the run refuses, cuts or cannot score."""
    if routing.unrouted:
        worst = max(routing.unrouted, key=lambda row: row.num_rows)
        yield error(
            "reward.routes",
            f"{sum(row.num_rows for row in routing.unrouted):,} rows have no reward function, most of task "
            f"{worst.task} of {worst.source}; add their tasks to reward.routes or reward.rules, or leave them out",
        )
    if prompts is None:
        return
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
            f"the prompts of {prompts.num_unmeasured:,} rows are not measured; point it at the model's folder, "
            "of which tokenizer and chat template are read",
        )
    if prompts.num_rows < config.training.groups_per_step:
        yield warning(
            "training.groups_per_step",
            f"a step takes {config.training.groups_per_step} prompts and there are {prompts.num_rows} rows, so "
            "some come several times in one step; lower it",
        )


def _key_of(reason: str) -> str:
    if reason == "too_many_images":
        return "rollout.engine.max_images_per_prompt"
    if reason in ("prompt_too_long", "completion_cut"):
        return "rollout.engine.max_model_len"
    return "data.train"


def _remedy(reason: str, share: float, limit: float) -> str:
    if reason == "completion_cut":
        return "raise it, or lower rollout.sampling.max_completion_tokens or model.max_pixels"
    smaller = "; model.max_pixels makes pictures shorter" if reason == "prompt_too_long" else ""
    if share > limit:
        return (
            f"the run drops them, {share:.1%} of all, and stops above training.max_drop_frac={limit:g}; change the "
            f"setting, or build the data again{smaller}"
        )
    return f"the run drops and counts them{smaller}"


def store_findings(config: ExperimentConfig, need: StoreNeed) -> Iterator[Finding]:
    """Warn where groups do not fit the object store of a Ray that the run starts itself."""
    store = config.cluster.object_store_bytes
    if config.cluster.address is None and need.total_bytes > store:
        yield warning(
            "cluster.object_store_bytes",
            f"{need.num_groups} groups of {need.group_bytes / 1e6:.2f} MB may be on their way at once, "
            f"{need.total_bytes / 1e9:.2f} GB in all, and it holds {store / 1e9:.2f} GB; the rest travels over the "
            "disk, which is slower: raise it, or lower training.groups_per_step",
        )
