"""SubmitConfig: how `mixed-r1 submit` hands a run to a Ray cluster."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitConfig:
    """How a run becomes a Ray job."""

    address: str | None
    """Of the cluster's dashboard; null reads RAY_API_SERVER_ADDRESS."""
