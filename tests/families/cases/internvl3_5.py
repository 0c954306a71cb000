"""A tiny InternVL with a Qwen3 language model, as InternVL3.5."""

from tests.families.cases.internvl import make_case

CASE = make_case("internvl3_5", model_type="qwen3", head_dim=32)
