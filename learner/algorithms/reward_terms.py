"""What is taken from a reward before advantages: length beyond a soft limit, distance from a reference model.

Axes: N groups, G completions of a group, T tokens of a completion.
"""

import torch


def overlong_penalty(
    lengths: torch.Tensor, *, max_completion_tokens: int, buffer_tokens: int, penalty: float
) -> torch.Tensor:
    """Give what a completion's length adds to its reward: 0, then falling linearly to -penalty at the hard limit.

    Args:
        lengths: int64 of any shape, tokens.
        max_completion_tokens: the hard limit, at which the whole penalty is due.
        buffer_tokens: the fall begins so many tokens before the limit; 0 switches the penalty off.
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


def kl_in_reward(rewards: torch.Tensor, kl_sums: torch.Tensor, *, kl_coef: float) -> torch.Tensor:
    """Take the completion's KL estimate from its reward.

    Args:
        rewards: [N, G].
        kl_sums: [N, G], sum over the completion's tokens, nats; k1 sums to the log-ratio of the whole completion.
        kl_coef: weight of the KL.

    Returns:
        float64 [N, G].

    Source: RLOO, arXiv:2402.14740, the reward with a KL penalty.
    """
    return rewards.double() - kl_coef * kl_sums.double()


def token_returns(reward: torch.Tensor, token_kl: torch.Tensor, *, kl_coef: float) -> torch.Tensor:
    """Give each token the reward minus the KL of itself and of all later tokens; earlier ones it could not change.

    Args:
        reward: float64 scalar, given at the completion's end.
        token_kl: [T], nats.
        kl_coef: weight of the KL.

    Returns:
        float64 [T].

    Source: REINFORCE++, arXiv:2501.03262: A_t = r - kl_coef * sum of KL(i) over i = t .. T.

    Example:
        >>> token_returns(torch.tensor(1.0), torch.tensor([0.5, 0.0, 1.0]), kl_coef=0.5).tolist()
        [0.25, 0.5, 0.5]
    """
    to_go = token_kl.double().flip(0).cumsum(0).flip(0)
    return reward.double() - kl_coef * to_go
