"""The matrix of families and proofs that is printed at the end of a run."""

from collections.abc import Mapping

from tests.differences import Row

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "packed = padded": (
        "packed = padded: logprobs",
        "packed = padded: gradients",
        "rows = alone: logprobs",
        "rows = alone: gradients",
    ),
    "prefix-shared = padded": (
        "prefix-shared = padded: logprobs",
        "prefix-shared = padded: gradients",
        "one vision pass a group = repeated: gradients",
    ),
    "2 ranks = 1": ("2 ranks = 1 rank: gradients", "2 ranks of ZeRO-3 = 1 rank: gradients"),
    "engine = learner": ("engine = learner: logprobs",),
    "after sync": ("tensors after sync",),
    "export": ("export in transformers and vLLM",),
    "20 GRPO steps": ("reward over 20 steps",),
    "box frame": ("box frame",),
}
"""Title -> comparisons and facts that stand in the column, in this order."""
NOT_RUN = "-"


def matrix(rows: Mapping[tuple[str, str], Row], families: list[str]) -> list[str]:
    """Return the lines of the matrix, as a Markdown table; a column that was not run is shown as "-".

    Args:
        rows: by comparison and family.
        families: one line each, those without any row left out.
    """
    present = [name for name in families if any(model == name for _, model in rows)]
    lines = [["family", *COLUMNS]]
    for name in present:
        cells = [[_cell(rows[what, name]) for what in column if (what, name) in rows] for column in COLUMNS.values()]
        lines.append([name, *(", ".join(cell) or NOT_RUN for cell in cells)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    shown = [" | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    ruler = " | ".join("-" * width for width in widths)
    return [f"| {line} |" for line in (shown[0], ruler, *shown[1:])] if present else []


def _cell(row: Row) -> str:
    if row.fact:
        return row.fact
    return f"{row.largest:.1e}" + ("" if row.largest <= row.tolerance else f" ABOVE {row.tolerance:.0e}")
