"""Experts that several workers share, and that a CPU packs, are compared whole, each element at its own place."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("vllm", reason="the loaders are vLLM's")

from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.fused_moe.layer import FusedMoEFactory
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
from vllm.model_executor.model_loader.reload import record_metadata_for_reloading

from orchestration.workers.weight_sync import compare_fingerprints
from rollout.fingerprint import fingerprint, join_shards
from rollout.weight_channel import GlooWeightTransferEngine, WeightInspector

NUM_EXPERTS, HIDDEN = 6, 64
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"
OWN = {GATE_UP: "mlp.experts.routed_experts.w13_weight", DOWN: "mlp.experts.routed_experts.w2_weight"}


class Model(torch.nn.Module):
    """One layer of experts."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {}
    hf_to_vllm_mapper = SimpleNamespace(apply_list=lambda names: names)

    def __init__(self, width: int, is_transposed: bool) -> None:
        super().__init__()
        self.mlp = torch.nn.Module()
        self.mlp.experts = FusedMoEFactory(
            num_experts=NUM_EXPERTS, top_k=2, hidden_size=HIDDEN, intermediate_size=width, prefix="mlp.experts",
            is_fused_checkpoint_transposed=is_transposed, renormalize=True, dp_size=1, pcp_size=1,
        )  # fmt: skip

    def get_language_model(self) -> torch.nn.Module:
        return self

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        named = [(name.removeprefix("mlp.experts."), tensor) for name, tensor in weights]
        assert len(set(self.mlp.experts.routed_experts.load_weights(named))) == len(named)

    def pack(self) -> None:
        experts = self.mlp.experts.routed_experts
        experts.quant_method.process_weights_after_loading(experts)


def checkpoint(width: int, is_transposed: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {GATE_UP: (NUM_EXPERTS, 2 * width, HIDDEN), DOWN: (NUM_EXPERTS, HIDDEN, width)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: tensor.mT.contiguous() if is_transposed else tensor for name, tensor in drawn.items()}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[(1, 64, True), (1, 32, False), (2, 64, True), (2, 96, True), (4, 128, False)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[int, int, bool]:
    """Number of workers, width of an expert, and whether the checkpoint has the axes swapped.

    A share of 48 is rounded up to 64; with 32 and 64, sizes are equal that should not be confused.
    """
    return request.param


@pytest.fixture(params=["as Triton takes them", "packed"])
def workers(
    case: tuple[int, int, bool], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> list[Model]:
    number, *kind = case
    made = []
    for rank in range(number):
        monkeypatch.setattr(parallel_state, "_TP", SimpleNamespace(world_size=number, rank_in_group=rank))
        with set_current_vllm_config(VllmConfig()):  # a layer's name may occur once in each
            model = Model(*kind)
            model.load_weights(checkpoint(*kind).items())
            if request.param == "packed":
                model.pack()
            else:
                model.mlp.experts.routed_experts.quant_method.unquantized_backend = UnquantizedMoeBackend.TRITON
        made.append(model)
    return made


def wrong(workers: list[Model], case: tuple[int, int, bool], sent: dict[str, torch.Tensor] | None = None) -> list[str]:
    """Names of parameters that differ from what was sent; both are compared."""
    tensors = sent or checkpoint(*case[1:])
    answers = []
    for model in workers:
        own: Any = WeightInspector()
        own.model_runner = SimpleNamespace(get_model=lambda model=model: model, lora_config=None)
        own.weight_transfer_engine = SimpleNamespace(shapes={name: list(t.shape) for name, t in tensors.items()})
        own.vllm_config, own.parallel_config = VllmConfig(), SimpleNamespace(tensor_parallel_size=len(workers))
        layout = own.weight_layout(list(tensors))
        assert layout == OWN
        answers.append(own.weight_fingerprints(sorted(layout.values())))
    held = {name: join_shards(share for own in answers for share in own[name]) for name in answers[0]}
    dtype = torch.get_default_dtype()
    found, count = compare_fingerprints({name: fingerprint(t.to(dtype)) for name, t in tensors.items()}, held, layout)
    assert count == 2
    return found


def test_experts_are_compared_whole_whatever_the_number_of_workers(
    workers: list[Model], case: tuple[int, int, bool]
) -> None:
    assert wrong(workers, case) == []


def test_an_expert_that_changed_or_changed_places_is_found(workers: list[Model], case: tuple[int, int, bool]) -> None:
    sent = checkpoint(*case[1:])
    sent[DOWN][[2, 5]] = sent[DOWN][[5, 2]]
    assert wrong(workers, case, sent) == [OWN[DOWN]]

    sent = checkpoint(*case[1:])
    sent[GATE_UP][1, 3, 4] *= 1.5
    assert wrong(workers, case, sent) == [OWN[GATE_UP]]


def test_experts_with_swapped_axes_are_found_where_sizes_are_equal(
    workers: list[Model], case: tuple[int, int, bool]
) -> None:
    """They load, and nothing but the comparison could tell."""
    sent = checkpoint(*case[1:])
    name = {32: GATE_UP, 64: DOWN}.get(case[1])
    if name is not None:
        assert wrong(workers, case, {**sent, name: sent[name].mT.contiguous()}) == [OWN[name]]


@pytest.mark.parametrize("width", [32, 48, 64])
def test_updated_experts_are_packed_again_and_compute_what_the_weights_say(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, and not at all where an update brings no experts; against each expert's product written out."""
    case = (1, width, True)
    monkeypatch.setattr(parallel_state, "_TP", SimpleNamespace(world_size=1, rank_in_group=0))
    with set_current_vllm_config(VllmConfig()):
        model = Model(width, True)
        record_metadata_for_reloading(model)
        model.load_weights(checkpoint(width, True).items())
        model.pack()
    receiver: Any = object.__new__(GlooWeightTransferEngine)
    receiver.model, receiver.model_config = model, SimpleNamespace(dtype=torch.float32)
    receiver.vllm_config = VllmConfig()
    for factor in (1.0, 0.5, -2.0):
        sent = {name: factor * tensor for name, tensor in checkpoint(width, True).items()}
        if factor != 1.0:
            receiver._staged = list(sent.items())
            receiver.finish_weight_update()
        receiver._staged = []
        receiver.finish_weight_update()
        assert wrong([model], case, sent) == []
        torch.testing.assert_close(computed(model), expected(sent), rtol=1e-4, atol=1e-3)


TOKENS = torch.linspace(-1.0, 1.0, 5 * HIDDEN).reshape(5, HIDDEN).cos()
CHOSEN = torch.tensor([[0, 1], [5, 2], [3, 3], [4, 0], [1, 5]], dtype=torch.int32)
SHARES = torch.linspace(0.1, 0.9, 10).reshape(5, 2)


def computed(model: Model) -> torch.Tensor:
    experts = model.mlp.experts.routed_experts
    with set_forward_context(None, VllmConfig()):
        output: torch.Tensor = experts.quant_method.forward_native(
            experts, TOKENS.clone(), SHARES, CHOSEN, shared_experts=None, shared_experts_input=None
        )
    return output


def expected(sent: dict[str, torch.Tensor]) -> torch.Tensor:
    found = torch.zeros_like(TOKENS)
    for token, (chosen, shares) in enumerate(zip(CHOSEN.tolist(), SHARES, strict=True)):
        for expert, share in zip(chosen, shares, strict=True):
            gate, up = (TOKENS[token] @ sent[GATE_UP][expert]).chunk(2)
            found[token] += share * (torch.nn.functional.silu(gate) * up) @ sent[DOWN][expert]
    return found
