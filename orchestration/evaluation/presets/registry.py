"""The presets by name."""

import difflib

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
        ConfigError: There is none; the message names the one that was probably meant, or lists them.
    """
    if name not in PRESETS:
        if near := difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.5):
            raise ConfigError(f"evaluate.preset={name} is not a preset; did you mean {near[0]}?")
        known = "; ".join(f"{preset.name}: {preset.summary}" for preset in PRESETS.values())
        raise ConfigError(f"evaluate.preset={name} is not a preset; use one of {known}")
    return PRESETS[name]
