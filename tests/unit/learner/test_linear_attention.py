"""Linear attention over a stream against the same layer on every sequence by itself, in value and gradient."""

import numpy as np
import pytest
import torch
from plain_model import load_plain, whole_policy
from tiny_learner import CASES

from learner.attention.kernel import StreamLayout
from learner.attention.linear import prepare_linear, scan_stream
from learner.families import qwen3_5
from tests.families.case import write_model

CPU = torch.device("cpu")
LAYOUTS = {
    "one prompt": ((9,), (4, 2, 7), (0, 0, 0)),
    "several prompts": ((5, 30, 1, 12), (3, 8, 1, 20, 2), (0, 0, 1, 3, 3)),
    "nothing shared": ((7, 3, 22), (), ()),
    "empty branches": ((6, 4), (0, 3, 0), (0, 0, 1)),
    "only empty branches": ((6,), (0, 0), (0, 0)),
    "shorter than the convolution": ((1, 2, 1), (1, 2, 1, 6), (0, 0, 1, 2)),
    "several chunks": ((130, 64, 65, 3), (66, 1, 64, 5), (0, 0, 1, 3)),
}
KERNEL, HEADS, KEY, VALUE = 4, 2, 3, 5
LAYER = "model.language_model.layers.0.linear_attn"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen3_5")
    write_model(path, CASES["qwen3_5"])
    return path


def remember(layer):
    """Have a random gated delta net keep most of what is ten tokens back."""
    with torch.no_grad():
        layer.A_log.copy_(torch.tensor([0.02, 0.1]).log())
    return layer


def make_layout(name):
    stems, branches, stem_of = (np.array(values, dtype=np.int64) for values in LAYOUTS[name])
    return StreamLayout(stem_lengths=stems, branch_lengths=branches, stem_of=stem_of)


def sequences(layout):
    """Stream rows of each sequence from its first token on, and how many of them are its stem's."""
    lengths = [*layout.stem_lengths, *layout.branch_lengths]
    ends = np.cumsum(lengths)
    rows = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    num_stems = len(layout.stem_lengths)
    alone = [(stem, 0) for stem in rows[:num_stems]]
    grown = zip(layout.stem_of, rows[num_stems:], strict=True)
    return [*alone, *((np.concatenate([rows[stem], own]), len(rows[stem])) for stem, own in grown)]


def halving_sum(inputs, state):
    """s = s / 2 + x + (the x before), of which s is also the output: a state and a convolution of 2."""
    (numbers,) = inputs
    before, total = (torch.zeros_like(numbers[:, :1]), torch.zeros_like(numbers[:, 0])) if state is None else state
    outs = []
    for number, last in zip(numbers.unbind(1), torch.cat([before, numbers], dim=1).unbind(1), strict=False):
        total = total / 2 + number + last
        outs.append(total)
    return torch.stack(outs, dim=1), (numbers[:, -1:], total)


def test_a_small_stream_worked_by_hand():
    """Stem 1, 2; branches 3 and 4, 5; a stem 7 alone.

    The stem ends with s = 1 / 2 + 2 + 1 = 3.5 and x = 2, so the branches begin with 3.5 / 2 + 3 + 2 = 6.75 and
    3.5 / 2 + 4 + 2 = 7.75. Of the sum of their outputs, 6.75 + 7.75 + 12.875, the derivative by the stem's s is
    1 / 2 + 1 / 2 + 1 / 4 = 1.25 and by the convolution's 2 it is 1 + 1 + 1 / 2 = 2.5. The s is 1.5 times the stem's
    first number and once its second, hence 1.875 and 1.25 + 2.5. The 4 counts once where it stands, and once and a half
    in what follows.
    """
    stream = torch.tensor([[1.0], [2.0], [7.0], [3.0], [4.0], [5.0]], dtype=torch.float64, requires_grad=True)
    layout = StreamLayout(stem_lengths=np.array([2, 1]), branch_lengths=np.array([1, 2]), stem_of=np.array([0, 0]))

    out = scan_stream(halving_sum, [stream], prepare_linear(layout, CPU))
    (gradient,) = torch.autograd.grad(out[3:].sum(), stream)

    assert out[:, 0].tolist() == [1.0, 3.5, 7.0, 6.75, 7.75, 12.875]
    assert gradient[:, 0].tolist() == [1.875, 3.75, 0.0, 1.0, 2.5, 1.0]


def delta_rule(inputs, state):
    """A causal convolution, then the gated delta rule token by token, as the paper writes them."""
    mixed, decay, beta = inputs
    if state is None:
        before = mixed.new_zeros(len(mixed), KERNEL - 1, mixed.shape[2])
        recurrent = mixed.new_zeros(len(mixed), HEADS, KEY, VALUE)
    else:
        before, recurrent = state
    mixed = torch.cat([before, mixed], dim=1)
    taps = torch.linspace(-1.0, 1.0, KERNEL * mixed.shape[2], dtype=mixed.dtype).view(KERNEL, -1)
    convolved = sum(taps[i] * mixed[:, i : i + decay.shape[1]] for i in range(KERNEL)).tanh()
    outs = []
    for t in range(decay.shape[1]):
        query, key, value = convolved[:, t].unflatten(1, (HEADS, -1)).split([KEY, KEY, VALUE], dim=-1)
        key = key / (key.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        recurrent = recurrent * decay[:, t].exp()[..., None, None]
        wrong_by = value - torch.einsum("nhk,nhkv->nhv", key, recurrent)
        recurrent = recurrent + torch.einsum("nhk,nhv->nhkv", key, beta[:, t, :, None] * wrong_by)
        outs.append(torch.einsum("nhk,nhkv->nhv", query, recurrent))
    return torch.stack(outs, dim=1), (mixed[:, -(KERNEL - 1) :], recurrent)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_stream_equals_every_sequence_by_itself_in_float64(name):
    layout = make_layout(name)
    generator = torch.Generator().manual_seed(3)
    shapes = [(layout.num_tokens, size) for size in (HEADS * (2 * KEY + VALUE), HEADS, HEADS)]
    drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs = [tensor.requires_grad_() for tensor in (drawn[0] - 0.5, -0.1 * drawn[1], drawn[2])]
    grad_out = torch.randn(layout.num_tokens, HEADS, VALUE, generator=generator, dtype=torch.float64)

    out = scan_stream(delta_rule, inputs, prepare_linear(layout, CPU))
    alone = [
        delta_rule([tensor[rows][None] for tensor in inputs], None)[0][0, num_stem:]
        for rows, num_stem in sequences(layout)
        if len(rows) > num_stem
    ]
    expected = torch.cat(alone)
    found = torch.autograd.grad(out, inputs, grad_out)
    wanted = torch.autograd.grad(expected, inputs, grad_out)

    assert (out - expected).abs().max() < 1e-12
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_gated_delta_net_equals_that_of_transformers_on_every_sequence_by_itself(name, model_path, differences):
    """transformers' own forward pass, without padding, of the same weights."""
    layout = make_layout(name)
    ours = whole_policy(model_path)
    layer, plain = (remember(model.get_submodule(LAYER)) for model in (ours.hf_model, load_plain(model_path)))
    generator = torch.Generator().manual_seed(3)
    stream = torch.randn(layout.num_tokens, plain.hidden_size, generator=generator, requires_grad=True)
    grad_out = torch.randn(stream.shape, generator=generator)

    out = layer(hidden_states=stream[None], **ours.family.stream_arguments(layout, CPU))[0]
    alone = [plain(stream[rows][None])[0, num_stem:] for rows, num_stem in sequences(layout) if len(rows) > num_stem]
    expected = torch.cat(alone)
    found = torch.autograd.grad(out, [stream, *layer.parameters()], grad_out)
    wanted = torch.autograd.grad(expected, [stream, *plain.parameters()], grad_out)

    differences.check("gated delta net, stream = alone: outputs", "qwen3_5", out, expected, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        scale = max(1.0, float(other.abs().max()))
        differences.check("gated delta net: gradients", "qwen3_5", one / scale, other / scale, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_branch_depends_on_the_convolution_and_on_the_recurrent_state_of_its_stem(which, model_path, monkeypatch):
    """The tests above would not see a state that is lost if what it holds had decayed."""
    layout = make_layout("one prompt")
    policy = whole_policy(model_path)
    layer = remember(policy.hf_model.get_submodule(LAYER))
    stream = torch.randn(1, layout.num_tokens, layer.hidden_size, generator=torch.Generator().manual_seed(3))
    blocks = policy.family.stream_arguments(layout, CPU)

    def forgetful(layer, inputs, state):
        if state is not None:
            state = tuple(torch.zeros_like(part) if i == which else part for i, part in enumerate(state))
        return scan(layer, inputs, state)

    scan = qwen3_5._scan
    with torch.no_grad():
        right = layer(hidden_states=stream, **blocks)
        monkeypatch.setattr(qwen3_5, "_scan", forgetful)
        wrong = layer(hidden_states=stream, **blocks)

    changed = (right - wrong)[0].abs().amax(1)
    assert changed[:9].max() == 0
    assert changed[9:].max() > 0.01
