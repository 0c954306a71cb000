"""Curves of a run over its steps, as SVG drawn by Matplotlib."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from orchestration.page.figures import colours_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#2b2b33"
BLUE, ORANGE, GREEN, RED, GREY = "#3b6fb6", "#c8731b", "#2f8f6b", "#a33b4a", "#999999"
SMOOTHING_STEPS = 7
MISMATCH = "engine against learner, mean |logprob|"
"""Title of the panel with a logarithmic axis and no smoothing."""
BY_FUNCTION = "reward by function (training batch)"
"""Title of the panel whose curves are those of the run's functions."""
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    BY_FUNCTION: {},
    "all rewards and format": {"reward": ("reward/mean", INK), "format": ("reward/format/mean", GREY)},
    "completion tokens": {"mean": ("rollout/completion_tokens_mean", INK)},
    "policy change": {
        "KL to the behaviour policy": ("policy/kl_behaviour", BLUE),
        "clipped fraction": ("policy/clip_frac", ORANGE),
    },
    MISMATCH: {"after each sync": ("sync/mismatch", RED)},
    "seconds a step": {
        "wait_rollout": ("time/wait_rollout_s", BLUE),
        "train": ("time/train_s", GREEN),
        "sync": ("time/sync_s", ORANGE),
        "step": ("time/step_s", INK),
    },
}
"""Title of a panel -> label of a curve -> its metric and colour."""

Metrics = Sequence[dict[str, float]]


def curves_svg(metrics: Metrics) -> Markup:
    """Draw reward by function, format, lengths, policy change, mismatch and time over the steps."""
    parts = {tuple(key.split("/")) for record in metrics for key in record}
    names = {part[1] for part in parts if len(part) == 3 and part[0] == "reward" and part[2] == "mean"} - {"format"}
    colours = colours_of(names)
    by_function = {name: (f"reward/{name}/mean", colour) for name, colour in colours.items() if name in names}

    def fill(axis: "Axes", title: str) -> None:
        for label, (name, colour) in (by_function if title == BY_FUNCTION else PANELS[title]).items():
            _curve(axis, metrics, name, label, colour, smoothed=title != MISMATCH)
        if title == MISMATCH:
            axis.set_yscale("log")

    return _svg(2, 3, list(PANELS), fill)


def held_out_svg(records: Metrics) -> Markup:
    """Draw held-out reward over the steps, by reward function (and further set), sampled and greedy.

    Args:
        records: Of `read_held_out`.
    """
    ending = "/sampled_task"
    keys = {key for record in records for key in record if key.endswith(ending)}
    names = sorted(key.removeprefix("held_out/").removesuffix(ending) for key in keys)
    colours = colours_of(names)

    def fill(axis: "Axes", title: str) -> None:
        for name in names:
            key = f"held_out/{name}/{title.rpartition(' ')[2]}"
            points = [(record["step"], record[key]) for record in records if key in record]
            axis.plot(
                *zip(*points, strict=True), color=colours[name], label=name, linewidth=1.7, marker="o", markersize=3
            )

    return _svg(1, 2, ["held-out reward, sampled", "held-out reward, greedy"], fill)


def _svg(num_rows: int, num_columns: int, titles: Sequence[str], fill: Callable[["Axes", str], None]) -> Markup:
    """Draw one panel per title; `fill` draws the curves, whose x is the step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (4.5 * num_columns, 3.3 * num_rows)
    figure, axes = pyplot.subplots(num_rows, num_columns, figsize=size, layout="constrained")
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title)
        fill(axis, title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    pyplot.close(figure)
    return Markup(out.getvalue()[out.getvalue().index("<svg") :])


def _curve(axis: "Axes", metrics: Metrics, name: str, label: str, colour: str, *, smoothed: bool) -> None:
    steps = [record["step"] + 1 for record in metrics if name in record]
    values = [record[name] for record in metrics if name in record]
    if not steps:
        return
    if smoothed:
        axis.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
        values = smooth(values)
    axis.plot(steps, values, color=colour, label=label, linewidth=1.7)


def smooth(values: Sequence[float], width: int = SMOOTHING_STEPS) -> list[float]:
    """Return the centred moving mean, which shrinks at the ends; as long as its input.

    Example:
        >>> smooth([0.0, 3.0, 0.0], 3)
        [1.5, 1.0, 1.5]
    """
    half = width // 2
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]
