"""What a run's image processor is told, without loading it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.config.model import ModelConfig
from orchestration.planning.demo_shape import demo_processor


def processor_of(config: ModelConfig) -> Mapping[str, Any]:
    """Give what `image_tokens` reads: of the folder at model.path, else model.hf_processor, else the demo's own.

    Where nobody says anything, an empty mapping: transformers' own defaults, which published files override.
    """
    if config.path is not None:
        for name in ("preprocessor_config.json", "processor_config.json"):
            file = Path(config.path) / name
            if file.is_file():
                saved: Mapping[str, Any] = json.loads(file.read_text())
                # The newer file holds all processors of a model, one a key.
                found: Mapping[str, Any] = saved.get("image_processor", saved)
                return found
        return config.hf_processor or {}
    if config.hf_processor is not None:
        return config.hf_processor
    assert config.family is not None, "ModelConfig has checked that there is a path or a family"
    return demo_processor(config.family)
