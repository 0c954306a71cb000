"""Curves of a run over its steps, as SVG drawn by Matplotlib."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from orchestration.page.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#2b2b33"
SMOOTHING_STEPS = 7

Metrics = Sequence[dict[str, float]]


def curves_svg(metrics: Metrics) -> Markup:
    """Draw reward by function, format, lengths, policy change, mismatch and time over the steps."""
    panels = (_rewards, _format, _lengths, _policy, _mismatch, _time)
    return _svg(2, 3, [partial(panel, metrics=metrics) for panel in panels])


def _svg(num_rows: int, num_columns: int, panels: Sequence[Callable[["Axes"], None]]) -> Markup:
    """Draw panels, each on axes whose x is the step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (4.5 * num_columns, 3.3 * num_rows)
    figure, axes = pyplot.subplots(num_rows, num_columns, figsize=size, layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=True):
        panel(axis)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    pyplot.close(figure)
    return Markup(out.getvalue()[out.getvalue().index("<svg") :])


def held_out_svg(records: Metrics) -> Markup:
    """Draw held-out reward over the steps, by reward function, sampled and greedy.

    Args:
        records: Of `read_held_out`.
    """
    names = sorted({key.split("/")[1] for record in records for key in record if key.endswith("/sampled_task")})
    return _svg(1, 2, [partial(_held_out, records=records, names=names, kind=kind) for kind in ("sampled", "greedy")])


def _held_out(axis: "Axes", *, records: Metrics, names: Sequence[str], kind: str) -> None:
    axis.set_title(f"held-out reward, {kind}")
    for number, name in enumerate(names):
        key = f"held_out/{name}/{kind}"
        points = [(record["step"], record[key]) for record in records if key in record]
        colour = COLOURS.get(name, f"C{number}")
        axis.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.7, marker="o", markersize=3)


def smooth(values: Sequence[float], width: int = SMOOTHING_STEPS) -> list[float]:
    """Centred moving mean that shrinks at the ends; as long as its input.

    Example:
        >>> smooth([0.0, 3.0, 0.0], 3)
        [1.5, 1.0, 1.5]
    """
    half = width // 2
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def _line(axis: "Axes", metrics: Metrics, name: str, label: str, colour: str, *, faint: bool = True) -> None:
    steps = [record["step"] + 1 for record in metrics if name in record]
    values = [record[name] for record in metrics if name in record]
    if not steps:
        return
    if faint:
        axis.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
        values = smooth(values)
    axis.plot(steps, values, color=colour, label=label, linewidth=1.7)


def _rewards(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("reward by function (training batch)")
    for family, colour in COLOURS.items():
        _line(axis, metrics, f"reward/{family}/mean", family, colour)


def _format(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("all rewards and format")
    _line(axis, metrics, "reward/mean", "reward", INK)
    _line(axis, metrics, "reward/format/mean", "format", "#999999")


def _lengths(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("completion tokens")
    _line(axis, metrics, "rollout/completion_tokens_mean", "mean", INK)


def _policy(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("policy change")
    _line(axis, metrics, "policy/kl_behaviour", "KL to the behaviour policy", "#3b6fb6")
    _line(axis, metrics, "policy/clip_frac", "clipped fraction", "#c8731b")


def _mismatch(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("engine against learner, mean |logprob|")
    _line(axis, metrics, "sync/mismatch", "after each sync", "#a33b4a", faint=False)
    axis.set_yscale("log")


def _time(axis: "Axes", metrics: Metrics) -> None:
    axis.set_title("seconds a step")
    for name, colour in (("wait_rollout", "#3b6fb6"), ("train", "#2f8f6b"), ("sync", "#c8731b"), ("step", INK)):
        _line(axis, metrics, f"time/{name}_s", name, colour)
