"""All adapters by the name that recipes use."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from conf.ranges import nearest
from orchestration.data.sources.base import Adapter
from orchestration.data.sources.choices import AI2D, MMMU, Geometry3K, ScienceQA
from orchestration.data.sources.coco_detection import CocoDetection
from orchestration.data.sources.drawn import Drawn
from orchestration.data.sources.llava import Llava, ShareGPT4V
from orchestration.data.sources.mapped import FormatAdapter, HuggingFace, Jsonl, Parquet, formats
from orchestration.data.sources.plotqa import PlotQA
from orchestration.data.sources.refcoco import RefCOCO, RefCOCOTable
from orchestration.settings.errors import ConfigError

_WRITTEN: dict[str, Callable[[], Adapter]] = {
    "ai2d": AI2D,
    "coco_detection": CocoDetection,
    "drawn": Drawn,
    "geometry3k": Geometry3K,
    "huggingface": HuggingFace,
    "jsonl": Jsonl,
    "llava": Llava,
    "mmmu": MMMU,
    "parquet": Parquet,
    "plotqa": PlotQA,
    "refcoco": RefCOCO,
    "refcoco_table": RefCOCOTable,
    "scienceqa": ScienceQA,
    "sharegpt4v": ShareGPT4V,
}
_DESCRIBED: dict[str, Callable[[], Adapter]] = {name: partial(FormatAdapter, name) for name in formats()}

ADAPTERS: Mapping[str, Callable[[], Adapter]] = MappingProxyType(dict(sorted({**_WRITTEN, **_DESCRIBED}.items())))
"""What makes the adapter of each name."""


def find_adapter(name: str) -> Adapter:
    """Return a new adapter.

    Raises:
        ConfigError: No adapter has that name; the message names the nearest one, and all there are.

    Example:
        >>> find_adapter("docci").licence.name
        'CC BY 4.0'
    """
    make = ADAPTERS.get(name)
    if make is None:
        near = nearest(name, ADAPTERS)
        hint = f"did you mean {near}? Known" if near else "known"
        raise ConfigError(f"no adapter is called {name!r}; {hint} adapters: {', '.join(ADAPTERS)}")
    return make()


def describe() -> str:
    """Return all adapters as text: name, licence, first line of the description."""
    lines = []
    for name in ADAPTERS:
        adapter = find_adapter(name)
        lines.append(f"{name:16} {adapter.licence.name:24} {adapter.description.splitlines()[0]}")
    return "\n".join(lines)
