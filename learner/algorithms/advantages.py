"""Advantages of a whole optimiser step: rewards minus a baseline, over a scale.

Every rank holds the rewards of all groups of the step and computes the same numbers. All of it is float64: in float32,
equal rewards such as 0.1 leave a deviation of rounding size, and its division by an equally tiny standard deviation
makes an advantage out of nothing. Sums are `math.fsum`, which rounds once, so that the order of groups, completions or
ranks changes no bit.

Sources: GRPO, arXiv:2402.03300, section 4.1.2; without the division, Dr. GRPO, arXiv:2503.20783; leave one out, RLOO,
arXiv:2402.14740; over the batch, REINFORCE++, arXiv:2501.03262.
Axes: N groups of the step, G completions of a group, T tokens of a completion, M values in any order.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

Baseline = Literal["group_mean", "leave_one_out", "batch_mean"]
Scale = Literal["none", "group", "task", "batch"]
RewardKl = Literal["sequence", "token"]


def compute_advantages(
    rewards: Sequence[Sequence[float]],
    *,
    masked: Sequence[Sequence[bool]],
    tasks: Sequence[str],
    lengths: Sequence[Sequence[int]],
    token_kl: Mapping[tuple[int, int], torch.Tensor] | None,
    kl_coef: float | Sequence[float],
    reward_kl: RewardKl,
    baseline: Baseline,
    scale: Scale,
    std_floor: float,
    range_epsilon: float,
) -> list[list[torch.Tensor]]:
    """Return the advantage of every completion token of the step.

    With reward_kl sequence, a completion's advantage is one number, repeated for each of its tokens. With reward_kl
    token, each token has its own return, and the statistics are over tokens, so that a long completion weighs more in
    them; also without KL, as REINFORCE++ has it.

    A group whose rewards span less than `range_epsilon`, a lone completion included, has exactly zero advantage under
    group_mean and leave_one_out, and enters the standard deviation of its task or of the step with these zeros. Under
    batch_mean only a flat step is zero.

    Args:
        rewards: [N] lists of [G].
        masked: [N] lists of [G]; True is out of all statistics and gets advantage 0.
        tasks: [N], of each group.
        lengths: [N] lists of [G], tokens of each completion.
        token_kl: (n, g) of every unmasked completion -> [T], nats, old policy against reference; None without KL in the
            reward.
        kl_coef: weight of `token_kl` in the reward; [N] where tasks have their own.
        reward_kl: whether KL is summed over the completion, or subtracted from the return of its own and all earlier
            tokens; with token, `baseline` must be batch_mean.
        baseline: group_mean: the group's mean. leave_one_out: the mean of the group's other completions. batch_mean:
            the mean of the step.
        scale: divide by the standard deviation of the group, of the task's completions in the step, of the step's, or
            by nothing.
        std_floor: least value to divide by.
        range_epsilon: rewards that span less differ by rounding only.

    Returns:
        For each of N groups G tensors, float64 [T].

    Sources of KL in the reward: by completion, RLOO, arXiv:2402.14740; by token, REINFORCE++, arXiv:2501.03262.

    Example:
        Rewards 1 and 0, lengths 2 and 1: mean 0.5, standard deviation 0.5.

        >>> [[good, bad]] = compute_advantages(
        ...     [[1.0, 0.0]], masked=[[False, False]], tasks=["chart"], lengths=[[2, 1]], token_kl=None, kl_coef=0.0,
        ...     reward_kl="sequence", baseline="group_mean", scale="group", std_floor=0.0, range_epsilon=1e-6)
        >>> good.tolist(), bad.tolist()
        ([1.0, 1.0], [-1.0])
    """
    assert reward_kl == "sequence" or baseline == "batch_mean", "a group's mean over tokens is no baseline here"
    advantages = [[torch.zeros(length, dtype=torch.float64) for length in row] for row in lengths]
    places = [(n, g) for n, row in enumerate(masked) for g, is_out in enumerate(row) if not is_out]
    if not places:
        return advantages
    kl_coefs = [kl_coef] * len(rewards) if isinstance(kl_coef, int | float) else kl_coef
    # One value of a completion, or one of each of its tokens.
    values = []
    for n, g in places:
        kl = advantages[n][g] if token_kl is None else token_kl[n, g]  # zeros without KL
        if reward_kl == "token":
            values.append(token_returns(rewards[n][g], kl, kl_coef=kl_coefs[n]))
        else:
            values.append(torch.tensor([less_kl(rewards[n][g], kl, kl_coef=kl_coefs[n])], dtype=torch.float64))
    counts = [len(own) for own in values]
    group_of = torch.tensor([n for n, _ in places]).repeat_interleave(torch.tensor(counts))
    centred = _centred(torch.cat(values), group_of, baseline=baseline, range_epsilon=range_epsilon)
    parts = _scale_parts(scale, group_of, _task_numbers(tasks)[group_of])
    divided = torch.split_with_sizes(_divided(centred, parts, std_floor=std_floor), counts)
    for (n, g), own in zip(places, divided, strict=True):
        advantages[n][g] = own if reward_kl == "token" else own.repeat(lengths[n][g])
    return advantages


def part_advantages(
    parts: Sequence[Mapping[str, Sequence[float]]],
    weights: Sequence[Mapping[str, float]],
    *,
    masked: Sequence[Sequence[bool]],
    tasks: Sequence[str],
    lengths: Sequence[Sequence[int]],
    reward_kl: RewardKl,
    baseline: Baseline,
    scale: Scale,
    std_floor: float,
    range_epsilon: float,
) -> list[list[torch.Tensor]]:
    """Return the advantage of every completion token of the step, each part of the reward normalised by itself.

    A = S / max(rms(S), std_floor), with S the sum over parts k of w_k A_k: A_k is what `compute_advantages` makes of
    part k alone, over the groups that have a part of this name; rms is the root mean square of S over the unmasked
    completions of the step (over their tokens, with reward_kl token). Where the rewards are summed first, completions
    with equal sums have equal advantages, whichever of their parts is rare in the group; here they have not.

    Source: GDPO, arXiv:2601.05242: A_k over the group, their weighted sum, and its normalisation over the batch. Where
    this differs: deviations are of the population (the authors' code divides by n - 1), bounded below by `std_floor`
    (there 1e-4 is added); parts that span less than `range_epsilon` are exactly 0; and the mean over the batch, which
    is 0 where A_k is centred on its group, is not subtracted, so that a group without a difference keeps exactly 0.

    Args:
        parts: [N] name -> [G] unweighted values; those of a masked completion are not read.
        weights: [N] name -> weight, of the same names.
        masked: [N] lists of [G]; this and all that follow as in `compute_advantages`.
        tasks: [N]
        lengths: [N] lists of [G]
        reward_kl: token: statistics are over tokens. KL itself is in no part.
        baseline: of each part.
        scale: of each part.
        std_floor: least value to divide by.
        range_epsilon: values of a part that span less differ by rounding only.

    Returns:
        For each of N groups G tensors, float64 [T].

    Example:
        Two parts of weight 1 and three completions: A_a is (2, -1, -1) / sqrt(2), A_b is (-1, 2, -1) / sqrt(2); their
        sum (1, 1, -2) / sqrt(2) has a root mean square of 1.

        >>> [group] = part_advantages(
        ...     [{"a": [1.0, 0.0, 0.0], "b": [0.0, 1.0, 0.0]}], [{"a": 1.0, "b": 1.0}], masked=[[False] * 3],
        ...     tasks=["chart"], lengths=[[1] * 3], reward_kl="sequence", baseline="group_mean", scale="group",
        ...     std_floor=0.0, range_epsilon=1e-6)
        >>> [round(float(own), 4) for own in group]
        [0.7071, 0.7071, -1.4142]
    """
    terms: list[list[list[float]]] = [[[] for _ in row] for row in lengths]
    for name in sorted({name for own in parts for name in own}):
        found = compute_advantages(
            [own.get(name, [0.0] * len(row)) for own, row in zip(parts, lengths, strict=True)],
            masked=[row if name in own else [True] * len(row) for own, row in zip(parts, masked, strict=True)],
            tasks=tasks,
            lengths=lengths,
            token_kl=None,
            kl_coef=0.0,
            reward_kl=reward_kl,
            baseline=baseline,
            scale=scale,
            std_floor=std_floor,
            range_epsilon=range_epsilon,
        )
        for n, own in enumerate(weights):
            if name in own:
                for g, values in enumerate(found[n]):
                    terms[n][g].append(own[name] * float(values[0]))  # without KL the same for all of its tokens
    places = [(n, g) for n, row in enumerate(masked) for g, is_out in enumerate(row) if not is_out]
    counts = [lengths[n][g] if reward_kl == "token" else 1 for n, g in places]
    sums = torch.tensor([math.fsum(terms[n][g]) for n, g in places], dtype=torch.float64)
    whole = torch.zeros(len(places), dtype=torch.int64).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    repeated = sums.repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    divided = torch.split_with_sizes(_divided(repeated, _parts(whole), std_floor=std_floor), counts)
    advantages = [[torch.zeros(length, dtype=torch.float64) for length in row] for row in lengths]
    for (n, g), own_values in zip(places, divided, strict=True):
        advantages[n][g] = own_values[:1].repeat(lengths[n][g])
    return advantages


def _centred(values: torch.Tensor, group_of: torch.Tensor, *, baseline: Baseline, range_epsilon: float) -> torch.Tensor:
    """Values [M] minus their baseline; exactly 0 where those that share it span less than `range_epsilon`."""
    centred = torch.zeros_like(values)
    for part in _parts(torch.zeros_like(group_of) if baseline == "batch_mean" else group_of):
        own = values[part]
        if own.max() - own.min() < range_epsilon:
            continue
        centred[part] = own - math.fsum(own.tolist()) / len(own)
        if baseline == "leave_one_out":
            # r - (sum - r) / (n - 1) = n / (n - 1) * (r - mean)
            centred[part] *= len(own) / (len(own) - 1)
    return centred


def _divided(centred: torch.Tensor, parts: Sequence[torch.Tensor], *, std_floor: float) -> torch.Tensor:
    """Centred values [M], each part over its root mean square: the population standard deviation where the mean is 0.

    It is so for every scale at least as wide as the baseline's own. Under batch_mean, a task of equal rewards is
    divided by its distance from the mean, never by 0.
    """
    divided = centred.clone()
    for part in parts:
        deviation = math.sqrt(math.fsum(centred[part].square().tolist()) / len(part))
        divisor = max(deviation, std_floor)
        if divisor > 0:
            divided[part] = centred[part] / divisor
    return divided


def _scale_parts(scale: Scale, group_of: torch.Tensor, task_of: torch.Tensor) -> list[torch.Tensor]:
    """Indices of the values that share one standard deviation; none where nothing is divided."""
    if scale == "none":
        return []
    return _parts({"group": group_of, "task": task_of, "batch": torch.zeros_like(group_of)}[scale])


def _parts(labels: torch.Tensor) -> list[torch.Tensor]:
    """Indices of each label that occurs in labels int64 [M]."""
    sizes = [size for size in labels.bincount().tolist() if size]
    return list(torch.split_with_sizes(labels.argsort(stable=True), sizes)) if sizes else []


def _task_numbers(tasks: Sequence[str]) -> torch.Tensor:
    """int64 [N]: the same number for the same task."""
    numbers = {task: number for number, task in enumerate(sorted(set(tasks)))}
    return torch.tensor([numbers[task] for task in tasks], dtype=torch.int64)


def overlong_penalty(
    lengths: torch.Tensor, *, max_completion_tokens: int, buffer_tokens: int, penalty: float
) -> torch.Tensor:
    """Return what a completion's length adds to its reward: 0, then falling linearly to -penalty at the hard limit.

    Args:
        lengths: int64 of any shape, tokens.
        max_completion_tokens: the hard limit, at which the whole penalty is due.
        buffer_tokens: the penalty starts this many tokens before the limit; 0 switches it off.
        penalty: at least 0.

    Returns:
        float64, same shape, in [-penalty, 0].

    Source: DAPO, arXiv:2503.14476, eq. 13, times `penalty`.

    Example:
        A limit of 10 with a buffer of 4: free up to 6, half the penalty at 8.

        >>> overlong_penalty(torch.tensor([6, 8, 10]), max_completion_tokens=10, buffer_tokens=4, penalty=1.0).tolist()
        [0.0, -0.5, -1.0]
    """
    if buffer_tokens == 0:
        return torch.zeros(lengths.shape, dtype=torch.float64)
    excess = lengths.double() - (max_completion_tokens - buffer_tokens)
    # 0.0 - x, and not -x, which would make -0.0 of a free completion.
    return 0.0 - penalty * (excess / buffer_tokens).clamp(0.0, 1.0)


def less_kl(reward: float, token_kl: torch.Tensor, *, kl_coef: float) -> float:
    """Return a reward minus the KL of its whole completion: [T], nats, times `kl_coef`."""
    return reward - kl_coef * math.fsum(token_kl.tolist())


def token_returns(reward: float, token_kl: torch.Tensor, *, kl_coef: float) -> torch.Tensor:
    """Return for each token the reward minus the KL of itself and of all later tokens; it cannot change earlier ones.

    Args:
        reward: given at the completion's end.
        token_kl: [T], nats.
        kl_coef: weight of the KL.

    Returns:
        float64 [T].

    Source: REINFORCE++, arXiv:2501.03262: A_t = r - kl_coef * sum of KL(i) over i = t .. T.

    Example:
        >>> token_returns(1.0, torch.tensor([0.5, 0.0, 1.0]), kl_coef=0.5).tolist()
        [0.25, 0.5, 0.5]
    """
    to_go = token_kl.double().flip(0).cumsum(0).flip(0)
    return reward - kl_coef * to_go
