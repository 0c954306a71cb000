import pytest
import torch

from learner.algorithms.logprobs import token_logprobs


@pytest.mark.parametrize("chunk_elements", [1, 3 * 11, 2**20])
@pytest.mark.parametrize(("temperature", "banned"), [(1.0, []), (0.6, []), (1.0, [2, 9]), (1.3, [0])])
@pytest.mark.parametrize("cap", [None, 1.5])
def test_values_and_gradients_equal_log_softmax(chunk_elements, temperature, banned, cap, differences):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(7, 5, generator=generator)
    weight = torch.randn(11, 5, generator=generator)
    kept = torch.tensor([token for token in range(11) if token not in banned])
    places = torch.randint(0, len(kept), (7,), generator=generator)
    targets = kept[places]
    mixing = torch.randn(2, 7, generator=generator)
    chunked_inputs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    plain_inputs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]

    logprobs, entropy = token_logprobs(
        *chunked_inputs,
        targets,
        temperature=temperature,
        banned_token_ids=banned,
        logit_cap=cap,
        chunk_elements=chunk_elements,
    )
    (mixing[0] @ logprobs + mixing[1] @ entropy).backward()
    logits = plain_inputs[0] @ plain_inputs[1][kept].t()
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    log_softmax = torch.log_softmax(logits / temperature, -1)
    plain_logprobs = log_softmax.gather(-1, places[:, None])[:, 0]
    plain_entropy = -(log_softmax.exp() * log_softmax).sum(-1)
    (mixing[0] @ plain_logprobs + mixing[1] @ plain_entropy).backward()

    differences.check("chunked logprobs = log_softmax: values", "any", logprobs, plain_logprobs, atol=2e-6)
    differences.check("chunked entropy = its definition: values", "any", entropy, plain_entropy, atol=2e-6)
    for chunked, plain in zip(chunked_inputs, plain_inputs, strict=True):
        differences.check("chunked logprobs = log_softmax: gradients", "any", chunked.grad, plain.grad, atol=5e-6)


def test_a_frozen_head_gets_no_gradient():
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(6, 4)

    token_logprobs(hidden, weight, torch.tensor([0, 1, 2]))[0].sum().backward()

    assert hidden.grad is not None
    assert weight.grad is None


def test_bfloat16_inputs_give_float32_logprobs():
    hidden = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True)

    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([0, 1, 2]))
    logprobs.sum().backward()

    assert logprobs.dtype == entropy.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
