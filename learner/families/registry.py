"""Model families by the `model_type` of a checkpoint's config.json."""

from collections.abc import Callable
from typing import Any

from learner.errors import LearnerError
from learner.families.base import ModelFamily
from learner.families.internvl import InternVL
from learner.families.qwen2_5_vl import Qwen25VL

FAMILIES: dict[str, Callable[[Any], ModelFamily]] = {"internvl": InternVL, "qwen2_5_vl": Qwen25VL}


def get_family(config: Any) -> ModelFamily:
    """Return the family of a configuration of transformers.

    Raises:
        LearnerError: no file of learner/families knows this architecture.
    """
    if config.model_type not in FAMILIES:
        raise LearnerError(
            f"the checkpoint's model_type is {config.model_type!r}; supported: {', '.join(sorted(FAMILIES))}. Another "
            "architecture needs a file in learner/families, an entry in learner/families/registry.py, and a model in "
            "tests/unit/learner/tiny_learner.py, where the equality tests find it"
        )
    return FAMILIES[config.model_type](config)
