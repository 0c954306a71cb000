"""Tables of held-out scores for the terminal."""

from collections.abc import Mapping

Scores = Mapping[str, Mapping[str, float]]


def before_after_table(before: Scores, after: Scores) -> str:
    """Return one line per reward function: sampled and greedy reward before and after, and the change.

    Example:
        >>> print(before_after_table({}, {}).splitlines()[0])
        held-out reward                  sampled at the training temperature          greedy
    """
    lines = [
        "held-out reward                  sampled at the training temperature          greedy",
        f"{'':12}{'samples':>8}   {'before':>15} {'after':>15} {'change':>9}   "
        f"{'before':>8} {'after':>8} {'change':>9}",
    ]
    for family in sorted(before.keys() & after.keys()):
        b, a = before[family], after[family]
        lines.append(
            f"{family:12}{a['num_samples']:>8}   "
            f"{_with_error(b['sampled'], b['sampled_se'])} {_with_error(a['sampled'], a['sampled_se'])} "
            f"{a['sampled'] - b['sampled']:>+9.3f}   "
            f"{b['greedy']:>8.3f} {a['greedy']:>8.3f} {a['greedy'] - b['greedy']:>+9.3f}"
        )
    return "\n".join(lines)


def scores_table(scores: Scores, before: Scores) -> str:
    """Return one line per reward function: sampled and greedy reward, and the change from the untrained model.

    Args:
        scores: By reward function.
        before: Those of the untrained model; empty where they are not known, or are of other samples.

    Example:
        >>> print(scores_table({}, {}))
        held-out reward samples          sampled    change     greedy    change
    """
    lines = [f"{'held-out reward':16}{'samples':>7} {'sampled':>16} {'change':>9} {'greedy':>10} {'change':>9}"]
    for name, score in sorted(scores.items()):
        b = before.get(name)
        sampled, greedy = (f"{score[key] - b[key]:+.3f}" if b else "" for key in ("sampled", "greedy"))
        lines.append(
            f"{name:16}{score['num_samples']:>7} {_with_error(score['sampled'], score['sampled_se']):>16} "
            f"{sampled:>9} {score['greedy']:>10.3f} {greedy:>9}".rstrip()
        )
    return "\n".join(lines)


def _with_error(mean: float, standard_error: float) -> str:
    return f"{mean:.3f} ± {standard_error:.3f}".rjust(15)
