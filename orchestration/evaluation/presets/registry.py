"""The presets by name."""

from orchestration.errors import ConfigError
from orchestration.evaluation.presets.base import Preset
from orchestration.evaluation.presets.captions import CAPTIONS
from orchestration.evaluation.presets.chartqa import CHARTQA
from orchestration.evaluation.presets.mcq import MCQ
from orchestration.evaluation.presets.mixed import MIXED
from orchestration.evaluation.presets.pope import POPE
from orchestration.evaluation.presets.refcoco import REFCOCO

PRESETS = {preset.name: preset for preset in (MIXED, CHARTQA, REFCOCO, MCQ, POPE, CAPTIONS)}


def preset_of(name: str) -> Preset:
    """Give the preset called `name`.

    Raises:
        ConfigError: There is none; the message lists them.
    """
    if name not in PRESETS:
        known = "; ".join(f"{preset.name}: {preset.summary}" for preset in PRESETS.values())
        raise ConfigError(f"evaluation preset {name!r} is unknown; use one of {known}")
    return PRESETS[name]
