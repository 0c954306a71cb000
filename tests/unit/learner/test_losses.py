import math

import pytest
import torch

from learner.algorithms.losses import kl_estimate, policy_gradient_loss


def loss_of(
    logprobs, behaviour, advantages, mask=None, ref=None, kl_coef=0.0, num_completion_tokens=None, entropy=None
):
    logprobs = torch.as_tensor(logprobs)
    return policy_gradient_loss(
        logprobs,
        behaviour_logprobs=torch.as_tensor(behaviour),
        advantages=torch.as_tensor(advantages),
        completion_mask=torch.ones(len(logprobs), dtype=torch.bool) if mask is None else torch.tensor(mask),
        entropy=torch.zeros(len(logprobs)) if entropy is None else torch.tensor(entropy),
        ref_logprobs=None if ref is None else torch.tensor(ref),
        clip_low=0.2,
        clip_high=0.3,
        kl_coef=kl_coef,
        num_completion_tokens=num_completion_tokens or len(logprobs),
    )


def test_golden_values():
    # ratios 1, 2, 0.5, 2, 0.5 with advantages 1, 1, 1, -1, -1
    ratios = [1.0, 2.0, 0.5, 2.0, 0.5]
    # objective min(r a, clip(r, 0.8, 1.3) a): 1, 1.3 (clipped), 0.5, -2, -0.8 (clipped); sum 0, mean 0
    loss, metrics = loss_of(
        [-1.0 + math.log(r) for r in ratios], [-1.0] * 5, [1.0, 1.0, 1.0, -1.0, -1.0], entropy=[1.0, 2.0, 3.0, 4.0, 5.0]
    )

    assert loss.item() == pytest.approx(-(1 + 1.3 + 0.5 - 2 - 0.8) / 5, abs=1e-6)
    assert metrics["clip_frac"].item() == pytest.approx(2 / 5)
    assert metrics["ratio_mean"].item() == pytest.approx(6 / 5)
    assert metrics["mismatch"].item() == pytest.approx(4 * math.log(2) / 5)
    # k3 is exp(d) - d - 1 with d = -ln r: r = 2 gives 1/2 + ln 2 - 1, r = 1/2 gives 2 - ln 2 - 1; two tokens of each
    k3_sum = 2 * (0.5 + math.log(2) - 1) + 2 * (2 - math.log(2) - 1)
    assert metrics["kl_behaviour"].item() == pytest.approx(k3_sum / 5, abs=1e-6)
    assert metrics["entropy"].item() == pytest.approx(3.0)
    assert metrics["num_tokens"].item() == 5


def test_kl_estimate_golden_and_never_negative():
    # d = ln 2: exp(d) - d - 1 = 2 - 0.6931 - 1
    assert kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.0 + math.log(2)])).item() == pytest.approx(
        1 - math.log(2)
    )
    values = torch.linspace(-5, 0, 50)
    assert (kl_estimate(values[:, None], values[None, :]) >= 0).all()


def test_kl_adds_its_share_and_pulls_towards_the_reference():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)

    loss, metrics = loss_of(logprobs, [-1.0, -2.0], [0.0, 0.0], ref=[-1.5, -2.0], kl_coef=0.1)
    loss.backward()

    # d = -0.5: exp(-0.5) + 0.5 - 1 = 0.10653 on one of two tokens
    assert metrics["kl_ref"].item() == pytest.approx(0.10653 / 2, abs=1e-5)
    assert loss.item() == pytest.approx(0.1 * 0.10653 / 2, abs=1e-6)
    # The policy is above the reference at token 0: descent lowers it.
    assert logprobs.grad[0] > 0
    assert logprobs.grad[1] == 0


def test_gradient_raises_good_tokens_lowers_bad_ones_and_stops_at_the_clip():
    logprobs = torch.tensor([-1.0, -1.0, -1.0 + math.log(2), -1.0 - math.log(2)], requires_grad=True)

    loss, _ = loss_of(logprobs, [-1.0] * 4, [1.0, -1.0, 1.0, -1.0])
    loss.backward()

    assert logprobs.grad[0] < 0 < logprobs.grad[1]
    assert logprobs.grad[2:].tolist() == [0.0, 0.0]


def test_micro_batches_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    logprobs, behaviour, advantages = (torch.randn(9, generator=generator) for _ in range(3))

    whole, _ = loss_of(logprobs, behaviour, advantages)
    parts = [
        loss_of(logprobs[part], behaviour[part], advantages[part], num_completion_tokens=9)[0]
        for part in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]

    torch.testing.assert_close(sum(parts), whole)


def test_a_fully_masked_batch_gives_zero_loss_and_gradient_even_on_garbage():
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)

    loss, metrics = loss_of(logprobs, [float("nan"), 900.0], [1.0, 1.0], mask=[False, False])
    loss.backward()

    assert loss.item() == 0
    assert logprobs.grad.tolist() == [0.0, 0.0]
    assert all(value == 0 for value in metrics.values())


def test_masked_tokens_count_nowhere():
    loss, metrics = loss_of([-1.0, -3.0], [-1.0, -1.0], [1.0, 5.0], mask=[True, False], num_completion_tokens=1)
    alone, alone_metrics = loss_of([-1.0], [-1.0], [1.0])

    assert loss == alone
    assert metrics == alone_metrics


def test_a_missing_reference_is_named():
    with pytest.raises(ValueError, match="ref_logprobs is None"):
        loss_of([-1.0], [-1.0], [1.0], kl_coef=0.1)
