"""An engine that begins without weights has the buffers of the model's folder: the learner sends parameters alone."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("vllm", reason="the loader is vLLM's")

from vllm.config.load import LoadConfig
from vllm.model_executor.models.utils import WeightsMapper

from rollout.weight_channel import BlankLoader


class Model(torch.nn.Module):
    """A weight, a buffer that checkpoints hold, one that this checkpoint lacks, and one that none holds."""

    hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix={"model.": "own."})

    def __init__(self):
        super().__init__()
        self.own = torch.nn.Linear(2, 2, bias=False)
        for name, is_stored in (("scale", True), ("lacking", True), ("computed", False)):
            self.own.register_buffer(name, torch.ones(1), persistent=is_stored)


def test_buffers_are_read_and_weights_are_not(tmp_path):
    stored = {name: torch.full((1,), 3.0) for name in ("model.scale", "model.computed")}
    save_file({**stored, "model.weight": torch.full((2, 2), 3.0)}, tmp_path / "model.safetensors")
    model = Model()

    BlankLoader(LoadConfig()).load_weights(model, SimpleNamespace(model=str(tmp_path)))

    assert {name: float(buffer) for name, buffer in model.named_buffers()} == {
        "own.scale": 3.0,
        "own.lacking": 1.0,
        "own.computed": 1.0,
    }
    assert model.own.weight.abs().max() < 0.1
