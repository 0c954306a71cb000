"""Which family a checkpoint is of: by its model_type, or by the class that the user names."""

from typing import Any

from conf.own_code import OwnCodeError, load_own
from learner.errors import LearnerError
from learner.families.base import PARTS, BaseFamily, ModelFamily
from learner.families.causal_lm import CausalLM, is_streamed
from learner.families.generic import Generic
from learner.families.internvl import InternVL
from learner.families.qwen2_5_vl import Qwen25VL
from learner.families.qwen2_vl import Qwen2VL
from learner.families.qwen3_5 import Qwen35
from learner.families.qwen3_vl import Qwen3VL
from learner.families.qwen3_vl_moe import Qwen3VLMoe

FAMILIES: dict[str, type[ModelFamily]] = {
    "internvl": InternVL,
    "qwen2_5_vl": Qwen25VL,
    "qwen2_vl": Qwen2VL,
    "qwen3_5": Qwen35,
    "qwen3_vl": Qwen3VL,
    "qwen3_vl_moe": Qwen3VLMoe,
}


def load_family(text: str) -> type[ModelFamily]:
    """Load the class that `model.family` names.

    Raises:
        LearnerError: it cannot be loaded, is no ModelFamily, or lacks a method.
    """
    try:
        found = load_own("model.family", text)
    except OwnCodeError as error:
        raise LearnerError(str(error)) from error
    if not isinstance(found, type) or not issubclass(found, ModelFamily):
        raise LearnerError(
            f"model.family={text} is no class that derives from learner.families.base.ModelFamily; derive it"
        )
    lacking = [*sorted(found.__abstractmethods__), *([] if hasattr(found, "parts") else ["parts"])]
    if lacking:
        raise LearnerError(
            f"model.family={text} lacks {', '.join(lacking)}; define them as ModelFamily of learner/families/base.py "
            "says"
        )
    if set(found.parts) != set(PARTS):
        raise LearnerError(
            f"model.family={text} has the parts {', '.join(found.parts)}; name {', '.join(PARTS)}, each with the "
            "beginnings of its parameters' names"
        )
    return found


def get_family(config: Any, own: type[ModelFamily] | None = None) -> BaseFamily:
    """Return the family of a configuration of transformers; of an architecture that none knows, the generic path.

    Args:
        config: of the model.
        own: the user's class, which is taken whatever the architecture.

    Raises:
        LearnerError: the generic path cannot train this architecture, or the user's class does not read its
            configuration.
    """
    if own is not None:
        try:
            return own(config)
        except AttributeError as error:
            raise LearnerError(
                f"model.family: {own.__name__} does not fit a {config.model_type} model, whose configuration has no "
                f"{error.name}; read what it has in __init__"
            ) from error
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type](config)
    return CausalLM(config) if is_streamed(config) else Generic(config)
