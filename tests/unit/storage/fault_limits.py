"""Limits of faults for tests that count them."""

from typing import Any

from orchestration.settings.cluster import FaultsConfig


def fault_limits(**settings: Any) -> FaultsConfig:
    values: dict[str, Any] = {
        "heartbeat_s": 2.0,
        "heartbeat_timeout_s": 30.0,
        "step_timeout_s": 600.0,
        "start_timeout_s": 180.0,
        "call_timeout_s": 600.0,
        "window_s": 3600.0,
        "max_engine_faults": 8,
        "max_reward_faults": 16,
        "max_learner_faults": 3,
        "max_transfer_faults": 8,
        "max_checkpoint_faults": 3,
    }
    return FaultsConfig(**(values | settings))
