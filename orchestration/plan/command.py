"""`mixed-r1 plan`: print a plan, and say by the exit code whether it fits."""

import dataclasses
import json
from typing import Any

from orchestration.models.model_folder import check_model
from orchestration.plan.plan import RunPlan, plan_run
from orchestration.plan.records import MemoryUse
from orchestration.settings.experiment import ExperimentConfig

EXIT_DOES_NOT_FIT = 3


def print_plan(config: ExperimentConfig, *, as_json: bool) -> int:
    """Plan a run and print it; gives the exit code: 0 where it fits, 3 where it does not.

    Raises:
        ConfigError: the model's sizes are not known or not understood, or its folder is one that a run refuses.
    """
    folder = config.model.folder
    if folder is not None and (folder.exists() or config.model.hf_config is None):
        check_model(config.model, config.reward)
    plan = plan_run(config)
    if as_json:
        print(json.dumps(plan_json(plan), indent=2))
    else:
        from orchestration.plan.text import plan_text

        print(plan_text(plan), end="")
    return 0 if plan.fits else EXIT_DOES_NOT_FIT


def plan_json(plan: RunPlan) -> dict[str, Any]:
    """Give the whole plan as JSON can hold it: every field of the records, and what they work out of them."""
    values: dict[str, Any] = _plain(plan)
    values["fits"] = plan.fits
    values["model"]["parameters"]["total"] = plan.model.parameters.total
    values["batches"]["completions"] = plan.batches.completions
    values["memory"]["disk_bytes"] = plan.memory.disk_bytes
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        found = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, MemoryUse):
            found |= {"total_bytes": value.total_bytes, "excess_bytes": value.excess_bytes}
        return found
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
