"""What became of the rows of each source of a built dataset: the table at the end of a build, and losses."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.settings.errors import LossError
from orchestration.settings.recipe import ANY_SOURCE

LOSING_STAGES = ("read", "validate", "normalise", "measure")
"""Stages that refuse rows which cannot be used; filters, duplicates and selection leave rows out on purpose."""
MAX_LOSS_FRAC = 0.2
"""Share of a source's rows that may be refused as unusable."""
ON_PURPOSE = ("text_only",)
"""Reasons of these stages that an option of the source asks for."""
FAILED = "filter_failed/"
BROKEN = "broken_file"
MAX_REASONS = 3
MAX_EXAMPLE_CHARS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Rows of a source that are missing against its recipe's intention."""

    source: str
    message: str
    """Source, role, what is missing and why."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a dataset; None where there is none that can be read."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def find_losses(manifest: Mapping[str, Any], allowed: Sequence[str] = ()) -> list[Loss]:
    """Return what is lost, source by source.

    Args:
        manifest: Of a built dataset.
        allowed: Sources that may lose rows; "*" for all.
    """
    found = []
    for name, entry in manifest.get("by_source", {}).items():
        if name not in allowed and ANY_SOURCE not in allowed and (why := _why(entry)):
            found.append(Loss(source=name, message=f"{name} ({entry['role']}): {why}"))
    return found


def check_losses(folder: Path, allowed: Sequence[str]) -> None:
    """Refuse a dataset that lost rows which its recipe does not allow to be lost.

    Raises:
        LossError: names source, reason and remedy.
    """
    losses = find_losses(read_manifest(folder) or {}, allowed)
    if losses:
        listed = "\n".join(f"  {loss.message}" for loss in losses)
        raise LossError(
            f"the dataset is in {folder}, and these sources lack rows:\n{listed}\n"
            f"correct them, or accept what they lost: {remedy([*allowed, *(loss.source for loss in losses)])}"
        )


def remedy(sources: Sequence[str]) -> str:
    """Return the setting that accepts the losses of sources."""
    return f"'data.recipe.allow_loss=[{', '.join(sources)}]'"


def _why(entry: Mapping[str, Any]) -> str:
    """Return why a source counts as having lost rows; empty if it does not.

    Rows that cannot be used are counted over the whole source: its held-out share may be few rows.
    """
    halves = _halves(entry)
    read = sum(half["read"] for half in halves)
    refused = sorted((one for half in halves for one in half["refused"]), key=lambda one: -one["count"])
    for one in refused:
        if one["reason"] == BROKEN:
            more = f" (and {one['count'] - 1} more)" if one["count"] > 1 else ""
            return f"a file is broken{more}, {_shown(one)}; get it again"
    if not read:
        nothing = "it guards nothing" if entry["role"] == "guard" else "it adds nothing"
        return f"no row was read, so {nothing}; check its path, split and files"
    lost = [one for one in refused if _is_loss(one)]
    num_lost = sum(one["count"] for one in lost)
    if num_lost > MAX_LOSS_FRAC * read:
        what = f"{num_lost:,} of {read:,} rows ({num_lost / read:.0%}) cannot be used, most as {_named(lost[0])}"
        return f"{what}, such as {_shown(lost[0])}"
    for half in halves:
        if half["kept"] or half["role"] == "guard":
            continue
        if not half["read"]:
            return f"none of its {read:,} rows is held out: held_out_share needs rows with two different images"
        which = f"{half['read']:,} held-out rows" if half is not entry else f"{half['read']:,} rows"
        first = half["refused"][0]
        return f"none of its {which} is left, most went as {_named(first)}, such as {_shown(first)}"
    return ""


def _halves(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of a source by role: its own, and those of its held-out share, if it has one."""
    return [entry, entry["held_out"]] if "held_out" in entry else [entry]


def _is_loss(one: Mapping[str, Any]) -> bool:
    is_failed = one["reason"].startswith(FAILED)
    return is_failed or (one["stage"] in LOSING_STAGES and one["reason"] not in ON_PURPOSE)


def _named(one: Mapping[str, Any]) -> str:
    return f"{one['reason']} at {one['stage']} ({one['meaning']})"


def _shown(one: Mapping[str, Any]) -> str:
    text = " ".join(str(one["example"]).split())
    return text if len(text) <= MAX_EXAMPLE_CHARS else f"{text[:MAX_EXAMPLE_CHARS]}..."


def source_table(manifest: Mapping[str, Any]) -> list[str]:
    r"""Return a table of the sources: role, rows read and kept, the main reasons, and an example of the largest.

    Example:
        >>> refused = {"reason": "duplicate", "count": 2, "example": "7: an earlier row"}
        >>> entry = {"role": "train", "read": 9, "kept": 7, "refused": [refused]}
        >>> print("\n".join(source_table({"by_source": {"own": entry}})))
        source  role   read  kept  left out
        own     train     9     7  2 duplicate; such as 7: an earlier row
    """
    rows = [("source", "role", "read", "kept", "left out")]
    halves = [(name, half) for name, entry in manifest.get("by_source", {}).items() for half in _halves(entry)]
    for name, entry in halves:
        refused = entry["refused"]
        reasons = ", ".join(f"{one['count']:,} {one['reason']}" for one in refused[:MAX_REASONS])
        more = sum(one["count"] for one in refused[MAX_REASONS:])
        told = f"{reasons}{f', {more:,} more' if more else ''}"
        if refused:
            told += f"; such as {_shown(refused[0])}"
        rows.append((name, entry["role"], f"{entry['read']:,}", f"{entry['kept']:,}", told))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{name:{widths[0]}}  {role:{widths[1]}}  {read:>{widths[2]}}  {kept:>{widths[3]}}  {told}".rstrip()
        for name, role, read, kept, told in rows
    ]
