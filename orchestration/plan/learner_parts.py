"""What a learner rank holds, in pieces: what stays, and what each phase of a training step adds for a while."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestration.plan.activations import Activations
from orchestration.plan.records import MemoryItem
from orchestration.plan.stream_load import StreamLoad
from orchestration.plan.texts import make_item


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerParts:
    """Items of one rank, on its device and in its host's memory where something is offloaded."""

    kept: tuple[MemoryItem, ...]
    """On the device between steps."""
    phases: Mapping[str, tuple[MemoryItem, ...]]
    """What each phase of a step adds there."""
    host_kept: tuple[MemoryItem, ...] = ()
    host_phases: tuple[MemoryItem, ...] = ()
    """What the fullest phase adds in host memory."""

    @property
    def fullest(self) -> tuple[str, tuple[MemoryItem, ...]]:
        """The phase that adds most, and what it adds."""
        return max(self.phases.items(), key=lambda phase: sum(item.bytes for item in phase[1]))


def stored_items(counts: Activations, load: StreamLoad, *, is_recomputed: bool) -> tuple[MemoryItem, ...]:
    """Give what all blocks keep between forward and backward."""
    what = "block inputs kept for recomputation" if is_recomputed else "activations kept"
    text = make_item(
        f"{what}, language model",
        counts.text_stored,
        f"{counts.num_layers} blocks x {counts.num_tokens:,} tokens; a block keeps {counts.text_layer:,} B where "
        "nothing is recomputed",
    )
    found = [text]
    if counts.tower_stored:
        found.append(
            make_item(
                f"{what}, vision tower",
                counts.tower_stored,
                f"{counts.tower_layers} blocks x {counts.tower_rows:,} rows of {load.num_image_tokens:,} image tokens",
            )
        )
    if counts.projector:
        found.append(
            make_item("activations kept, projector", counts.projector, f"{load.num_image_tokens:,} image tokens")
        )
    found.append(
        make_item(
            "last norm, predicting rows, positions, pictures",
            counts.ends,
            f"{counts.num_tokens:,} tokens, {load.num_predicted:,} of them predicted; pictures float32",
        )
    )
    return tuple(found)


def block_backward_items(counts: Activations, *, is_recomputed: bool) -> tuple[MemoryItem, ...]:
    """Give what the backward pass of one block of the language model adds."""
    again = (make_item("one block recomputed", counts.text_layer, "what it keeps without recomputation"),)
    extra = make_item(
        "gradients within a block",
        counts.text_extra,
        f"of {counts.num_tokens:,} tokens: two MLP rows and two stream rows",
    )
    return (*(again if is_recomputed else ()), extra)


def tower_backward_items(counts: Activations, *, is_recomputed: bool) -> tuple[MemoryItem, ...]:
    """Give what the backward pass of the vision tower's last block finds and adds; nothing where it is frozen."""
    if not counts.tower_layer:
        return ()
    found = [make_item("kept, vision tower", counts.tower_stored, f"{counts.tower_layers} blocks")]
    if is_recomputed:
        found.append(make_item("one block recomputed", counts.tower_layer, "what it keeps without recomputation"))
    found.append(make_item("gradients within a block", counts.tower_extra, f"{counts.tower_rows:,} rows"))
    return tuple(found)
