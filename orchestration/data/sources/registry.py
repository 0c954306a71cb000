"""All adapters by the name that recipes use."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from orchestration.data.sources.ai2d import AI2D
from orchestration.data.sources.aokvqa import AOKVQA
from orchestration.data.sources.base import Adapter
from orchestration.data.sources.chartqa import ChartQA
from orchestration.data.sources.coco_detection import CocoDetection
from orchestration.data.sources.counting import Clevr, TallyQA
from orchestration.data.sources.docci import Docci
from orchestration.data.sources.drawn import Drawn
from orchestration.data.sources.geometry3k import Geometry3K
from orchestration.data.sources.llava import Llava, ShareGPT4V
from orchestration.data.sources.mapped import HuggingFace, Jsonl, Parquet
from orchestration.data.sources.mmmu import MMMU
from orchestration.data.sources.refcoco import RefCOCO, RefCOCOTable
from orchestration.data.sources.scienceqa import ScienceQA
from orchestration.data.sources.synthetic_plots import DVQA, PlotQA
from orchestration.data.sources.tagged_problems import ClevrCogent, GeoQA
from orchestration.settings.errors import ConfigError

ADAPTERS: Mapping[str, type[Adapter]] = MappingProxyType(
    {
        "ai2d": AI2D,
        "aokvqa": AOKVQA,
        "chartqa": ChartQA,
        "clevr": Clevr,
        "clevr_cogent": ClevrCogent,
        "coco_detection": CocoDetection,
        "docci": Docci,
        "drawn": Drawn,
        "dvqa": DVQA,
        "geometry3k": Geometry3K,
        "geoqa": GeoQA,
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
        "tallyqa": TallyQA,
    }
)


def find_adapter(name: str) -> Adapter:
    """Make the adapter of a name.

    Raises:
        ConfigError: No adapter has that name; says which one was probably meant, and all there are.

    Example:
        >>> find_adapter("docci").licence.name
        'CC BY 4.0'
    """
    adapter = ADAPTERS.get(name)
    if adapter is None:
        near = difflib.get_close_matches(name, ADAPTERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? Known" if near else "known"
        raise ConfigError(f"no adapter is called {name!r}; {hint} adapters: {', '.join(ADAPTERS)}")
    return adapter()


def describe() -> str:
    """Give all adapters as text: name, licence, first line of its documentation."""
    lines = []
    for name, adapter in ADAPTERS.items():
        first = (adapter.__doc__ or "").strip().splitlines()[0]
        lines.append(f"{name:16} {adapter.licence.name:24} {first}")
    return "\n".join(lines)
