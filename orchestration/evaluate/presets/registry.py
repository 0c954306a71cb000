"""The presets by name."""

import difflib

from orchestration.evaluate.presets.base import Preset
from orchestration.evaluate.presets.captions import CAPTIONS
from orchestration.evaluate.presets.chartqa import CHARTQA
from orchestration.evaluate.presets.mcq import MCQ
from orchestration.evaluate.presets.mixed import MIXED
from orchestration.evaluate.presets.pope import POPE
from orchestration.evaluate.presets.refcoco import REFCOCO
from orchestration.settings.errors import ConfigError

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
