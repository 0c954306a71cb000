import math

import pytest
import torch

from learner.algorithms.losses import policy_loss
from learner.config import AlgorithmConfig, CorrectionConfig


def loss_of(logprobs, behaviour, advantages, objective="clip", weights=None, **changes):
    """The loss with clip 0.2 / 0.3 and the mean over these tokens, of one sequence unless `lengths` says otherwise."""
    logprobs = torch.as_tensor(logprobs)
    num_tokens = len(logprobs)
    settings = {
        "old_logprobs": None,
        "behaviour_logprobs": behaviour,
        "advantages": advantages,
        "token_weights": [1 / num_tokens] * num_tokens if weights is None else weights,
        "entropy": [0.0] * num_tokens,
        "ref_logprobs": None,
        **{name: changes.pop(name) for name in ("old_logprobs", "entropy", "ref_logprobs") if name in changes},
    }
    lengths, kl_coef = changes.pop("lengths", [num_tokens]), changes.pop("kl_coef", 0.0)
    config = AlgorithmConfig(**{"clip_low": 0.2, "clip_high": 0.3, "old_logprobs": "recomputed", **changes})
    tensors = {name: None if values is None else torch.as_tensor(values) for name, values in settings.items()}
    return policy_loss(objective, logprobs, **tensors, lengths=lengths, kl_coef=kl_coef, config=config)


def gradient_of(ratios, advantages, objective="clip", **changes):
    """Gradient of the loss by logprob where current / behaviour probability is `ratios`."""
    logprobs = (torch.tensor(ratios).log() - 1).requires_grad_()
    loss, _ = loss_of(logprobs, [-1.0] * len(ratios), advantages, objective, **changes)
    [gradient] = torch.autograd.grad(loss, logprobs)
    return gradient.tolist()


# ---- clip


def test_clip_golden_values():
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
    assert (metrics["correction_mean"].item(), metrics["corrected_frac"].item()) == (1.0, 0.0)


def test_the_clip_removes_the_gradient_only_past_it_in_the_advantages_favour():
    found = gradient_of([1.0, 1.0, 2.0, 0.5, 2.0, 0.5], [1.0, -1.0, 1.0, -1.0, -1.0, 1.0])

    # -r A / 6 where the clip does not bind: a good token is raised, a bad one lowered
    assert found == pytest.approx([-1 / 6, 1 / 6, 0.0, 0.0, 2 / 6, -0.5 / 6])


def test_lower_and_upper_clip_stand_where_they_are_set():
    # just inside and just outside of 0.8 and 1.3
    assert gradient_of([0.81, 0.79], [-1.0, -1.0]) == pytest.approx([0.81 / 2, 0.0])
    assert gradient_of([1.29, 1.31], [1.0, 1.0]) == pytest.approx([-1.29 / 2, 0.0])


# ---- gspo


def test_gspo_clips_a_sequence_as_a_whole():
    # first sequence: mean log-ratio (ln 4 + ln 1) / 2 = ln 2, so s = 2; second: s = sqrt(1.21) = 1.1
    ratios, advantages = [4.0, 1.0, 1.21, 1.0], [1.0, 1.0, 1.0, 1.0]

    loss, metrics = loss_of([-1 + math.log(r) for r in ratios], [-1.0] * 4, advantages, "gspo", lengths=[2, 2])

    # min(2, 1.3) for two tokens, 1.1 for two
    assert loss.item() == pytest.approx(-(1.3 + 1.3 + 1.1 + 1.1) / 4)
    assert metrics["clip_frac"].item() == 0.5
    assert metrics["ratio_mean"].item() == pytest.approx((2 + 2 + 1.1 + 1.1) / 4)
    # All or nothing: also the token whose own ratio is 1 stops, and the one with 1.21 goes on. Gradient -s A / 4.
    found = gradient_of(ratios, advantages, "gspo", lengths=[2, 2])
    assert found == pytest.approx([0.0, 0.0, -1.1 / 4, -1.1 / 4])


def test_gspo_by_token_is_the_papers_objective_by_sequence():
    generator = torch.Generator().manual_seed(0)
    lengths, sequence_advantages = [3, 1, 2], torch.tensor([1.0, -2.0, 0.5])
    old = torch.randn(6, generator=generator) - 2
    logprobs = (old + 0.1 * torch.randn(6, generator=generator)).requires_grad_()
    weights = [1 / (3 * length) for length in lengths for _ in range(length)]

    # mean over sequences of min(s A, clip(s) A), s = exp(mean log-ratio), differentiated through s
    ratios = torch.stack([part.mean().exp() for part in (logprobs - old).split(lengths)])
    direct = -torch.minimum(ratios * sequence_advantages, ratios.clamp(0.8, 1.3) * sequence_advantages).mean()
    advantages = sequence_advantages.repeat_interleave(torch.tensor(lengths))
    loss, _ = loss_of(logprobs, old, advantages, "gspo", weights=weights, lengths=lengths)

    torch.testing.assert_close(loss, direct)
    torch.testing.assert_close(torch.autograd.grad(loss, logprobs), torch.autograd.grad(direct, logprobs))


def test_gspo_takes_advantages_by_token():
    # s = 1: gradient -A_t / 2 for each token
    assert gradient_of([1.0, 1.0], [1.0, -3.0], "gspo") == pytest.approx([-0.5, 1.5])


def test_gspo_leaves_uncounted_tokens_out_of_the_sequences_mean():
    # without the uncounted 9 the sequence's ratio is 1.21 ** 0.5
    loss, metrics = loss_of(
        [-1 + math.log(r) for r in (1.21, 1.0, 9.0)], [-1.0] * 3, [1.0] * 3, "gspo", weights=[0.5, 0.5, 0.0]
    )

    assert loss.item() == pytest.approx(-1.1)
    assert metrics["ratio_mean"].item() == pytest.approx(1.1)


# ---- cispo


def test_cispo_golden_values():
    # weights clip(2, 0.8, 1.3) = 1.3, clip(0.5) = 0.8, 1; logprobs -1 + ln 2, -1 - ln 2, -1; advantages 1, 1, -1
    ln2 = math.log(2)

    loss, metrics = loss_of([-1 + ln2, -1 - ln2, -1.0], [-1.0] * 3, [1.0, 1.0, -1.0], "cispo")

    assert loss.item() == pytest.approx(-(1.3 * (-1 + ln2) + 0.8 * (-1 - ln2) + 1.0) / 3)
    assert metrics["clip_frac"].item() == pytest.approx(2 / 3)
    assert metrics["ratio_mean"].item() == pytest.approx((2 + 0.5 + 1) / 3)


def test_cispo_keeps_a_bounded_gradient_where_the_clip_drops_it():
    ratios, advantages = [2.0, 0.5], [1.0, -1.0]

    assert gradient_of(ratios, advantages, "clip") == [0.0, 0.0]
    # -clip(r) A / 2
    assert gradient_of(ratios, advantages, "cispo") == pytest.approx([-1.3 / 2, 0.8 / 2])


def test_cispo_with_clip_low_one_has_no_lower_bound():
    assert gradient_of([0.001], [1.0], "cispo", clip_low=1.0) == pytest.approx([-0.001])


# ---- all objectives


@pytest.mark.parametrize("objective", ["clip", "gspo", "cispo"])
def test_on_policy_every_objective_has_the_policy_gradient(objective):
    # ratio 1: gradient -A / 3
    assert gradient_of([1.0] * 3, [2.0, -1.0, 0.0], objective) == pytest.approx([-2 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize("objective", ["clip", "gspo", "cispo"])
def test_micro_batches_of_whole_sequences_add_up_to_the_whole(objective):
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(9, generator=generator) / 5 for _ in range(7)]
    logprobs, behaviour, old, ref, entropy, advantages, weights = values
    lengths = [2, 1, 3, 3]

    def part_of(tokens, sequences):
        return loss_of(
            logprobs[tokens],
            behaviour[tokens],
            advantages[tokens],
            objective,
            weights=weights[tokens].abs(),
            lengths=lengths[sequences],
            old_logprobs=old[tokens],
            ref_logprobs=ref[tokens],
            entropy=entropy[tokens],
            kl_coef=0.1,
            entropy_coef=0.2,
            correction=CorrectionConfig(level="sequence"),
        )[0]

    whole = part_of(slice(0, 9), slice(0, 4))
    parts = [part_of(slice(0, 2), slice(0, 1)), part_of(slice(2, 6), slice(1, 3)), part_of(slice(6, 9), slice(3, 4))]

    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("objective", ["clip", "gspo", "cispo"])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 900.0])
def test_garbage_at_weight_zero_changes_neither_loss_nor_gradient_nor_metrics(objective, garbage):
    options = {"kl_coef": 0.1, "entropy_coef": 0.1, "correction": CorrectionConfig(level="token", action="mask")}

    def run(*extra):
        logprobs = torch.tensor([-1.1, *extra], requires_grad=True)
        entropy = torch.tensor([0.5, *extra], requires_grad=True)
        loss, metrics = loss_of(
            logprobs,
            [-1.2, *extra],
            [1.0, *extra],
            objective,
            weights=[1.0, *(0.0 for _ in extra)],
            lengths=[1] * (1 + len(extra)),
            old_logprobs=[-1.0, *extra],
            ref_logprobs=[-1.3, *extra],
            entropy=entropy,
            **options,
        )
        loss.backward()
        return loss, metrics, logprobs.grad, entropy.grad

    loss, metrics, gradient, entropy_gradient = run(garbage)
    alone, alone_metrics, alone_gradient, alone_entropy_gradient = run()

    assert loss == alone
    assert metrics == alone_metrics
    assert gradient.tolist() == [*alone_gradient.tolist(), 0.0]
    assert entropy_gradient.tolist() == [*alone_entropy_gradient.tolist(), 0.0]


@pytest.mark.parametrize("objective", ["clip", "gspo", "cispo"])
def test_a_call_without_counted_tokens_gives_zero_loss_and_gradient_even_on_garbage(objective):
    logprobs = torch.tensor([-1.0, math.nan], requires_grad=True)

    loss, metrics = loss_of(logprobs, [math.nan, 900.0], [1.0, 1.0], objective, weights=[0.0, 0.0])
    loss.backward()

    assert loss.item() == 0
    assert logprobs.grad.tolist() == [0.0, 0.0]
    assert all(value == 0 for value in metrics.values())


def test_a_nan_at_a_counted_token_is_not_hidden():
    loss, _ = loss_of([math.nan], [-1.0], [1.0])

    assert loss.isnan()


# ---- what the ratio divides by, and the correction


def test_old_logprobs_replace_behaviour_in_ratio_and_mismatch():
    # ratio 2 against old, mismatch ln 3 between old and behaviour
    loss, metrics = loss_of([-1 + math.log(2)], [-1 - math.log(3)], [-1.0], old_logprobs=[-1.0])

    assert loss.item() == pytest.approx(2.0)
    assert metrics["mismatch"].item() == pytest.approx(math.log(3))


def test_old_logprobs_of_a_single_update_give_ratio_one_and_the_policy_gradient():
    logprobs = torch.tensor([-0.3, -2.0], requires_grad=True)

    loss, metrics = loss_of(logprobs, [-5.0, -5.0], [1.0, -1.0], old_logprobs=logprobs.detach())
    loss.backward()

    assert metrics["ratio_mean"].item() == 1.0
    assert logprobs.grad.tolist() == [-0.5, 0.5]


def test_nothing_differentiates_through_old_logprobs():
    logprobs = torch.tensor([-0.3], requires_grad=True)

    loss, _ = loss_of(logprobs, [-5.0], [1.0], old_logprobs=logprobs)
    loss.backward()

    assert logprobs.grad.tolist() == [-1.0]


@pytest.mark.parametrize(
    ("level", "action", "expected"),
    # w = 4 and 0.25; their product is 1
    [
        ("token", "truncate", [2.0, 0.25]),
        ("token", "mask", [0.0, 0.0]),
        ("sequence", "truncate", [1.0, 1.0]),
        ("sequence", "mask", [1.0, 1.0]),
    ],
)
def test_the_correction_multiplies_the_gradient_of_the_policy_term(level, action, expected):
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    behaviour = [-1 - math.log(4), -1 + math.log(4)]

    loss, metrics = loss_of(
        logprobs,
        behaviour,
        [1.0, 1.0],
        old_logprobs=[-1.0, -1.0],
        correction=CorrectionConfig(level=level, action=action, low=0.5),
    )
    loss.backward()

    assert logprobs.grad.tolist() == pytest.approx([-w / 2 for w in expected], abs=1e-6)
    assert metrics["correction_mean"].item() == pytest.approx(sum(expected) / 2)
    hits = {("token", "truncate"): 0.5, ("token", "mask"): 1.0}.get((level, action), 0.0)
    assert metrics["corrected_frac"].item() == hits


def test_the_correction_leaves_kl_and_entropy_alone():
    settings = {"old_logprobs": [-1.0], "ref_logprobs": [-1.5], "entropy": [2.0], "kl_coef": 0.1, "entropy_coef": 0.5}

    loss, _ = loss_of([-1.0], [-9.0], [1.0], **settings, correction=CorrectionConfig(level="token", action="mask"))

    # the policy term is masked; 0.1 * k3(-0.5) - 0.5 * 2
    assert loss.item() == pytest.approx(0.1 * (math.exp(-0.5) + 0.5 - 1) - 1.0)


def test_a_correction_without_old_logprobs_is_refused():
    with pytest.raises(ValueError, match=r"correction\.level is token, but old_logprobs is None"):
        loss_of([-1.0], [-1.0], [1.0], correction=CorrectionConfig(level="token"))


# ---- KL and entropy


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    # d = ref - current = -0.5. k1 = 0.5, slope 1. k2 = 0.125, slope -d = 0.5. k3 = exp(-0.5) + 0.5 - 1, 1 - exp(d)
    [("k1", 0.5, 1.0), ("k2", 0.125, 0.5), ("k3", math.exp(-0.5) - 0.5, 1 - math.exp(-0.5))],
)
def test_kl_adds_its_share_and_pulls_towards_the_reference(estimator, value, gradient):
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)

    loss, metrics = loss_of(
        logprobs, [-1.0, -2.0], [0.0, 0.0], ref_logprobs=[-1.5, -2.0], kl_coef=0.1, kl_estimator=estimator
    )
    loss.backward()

    assert loss.item() == pytest.approx(0.1 * value / 2, abs=1e-6)
    # The policy is above the reference at token 0: descent lowers it.
    assert logprobs.grad[0].item() == pytest.approx(0.1 * gradient / 2, abs=1e-6)
    # Token 1 agrees with the reference; k1 pushes it down all the same.
    assert logprobs.grad[1].item() == pytest.approx(0.05 if estimator == "k1" else 0.0)
    # always k3
    assert metrics["kl_ref"].item() == pytest.approx(0.10653 / 2, abs=1e-5)


def test_a_reference_without_kl_coef_is_only_watched():
    loss, metrics = loss_of([-1.0], [-1.0], [0.0], ref_logprobs=[-1.5])

    assert loss.item() == 0.0
    assert metrics["kl_ref"].item() == pytest.approx(0.10653, abs=1e-5)


def test_a_missing_reference_is_named():
    with pytest.raises(ValueError, match="ref_logprobs is None"):
        loss_of([-1.0], [-1.0], [1.0], kl_coef=0.1)


def test_the_entropy_bonus_raises_entropy():
    entropy = torch.tensor([1.0, 3.0], requires_grad=True)

    loss, _ = loss_of([-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], entropy=entropy, entropy_coef=0.1)
    loss.backward()

    # -0.1 * mean(1, 3)
    assert loss.item() == pytest.approx(-0.2)
    assert entropy.grad.tolist() == pytest.approx([-0.05, -0.05])


def test_metrics_carry_no_gradient():
    _, metrics = loss_of(torch.tensor([-1.0], requires_grad=True), [-1.1], [1.0], ref_logprobs=[-1.0], kl_coef=0.1)

    assert not any(value.requires_grad for value in metrics.values())
