"""The tokenizer of a checkpoint, without a deep-learning library."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from rewards.core.base import RewardError


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder, which encodes any text whole and adds nothing to it.

    transformers writes the padding and truncation of its last call into `tokenizer.json`; both are taken off.

    Raises:
        RewardError: If the folder has none, or it does not load.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise RewardError(
            f"{folder} has no tokenizer.json; write one with AutoTokenizer.from_pretrained(..).save_pretrained(..)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise RewardError(f"{path} is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class CompletionDecoder:
    """Token ids of completions -> the text that rewards, reports and evaluations read.

    Special tokens stay, as they carry answers: `<ref>`, `<|box_start|>`, `<think>` in some checkpoints. Only those are
    left out that end or pad a text, by what the folder's own files say, and those that the caller names.
    """

    def __init__(self, folder: Path, *, hidden: Iterable[str] = ()) -> None:
        """Read the tokenizer and what ends a turn.

        Args:
            folder: Hugging Face folder.
            hidden: Further tokens that are no text.

        Raises:
            RewardError: See `load_tokenizer`.
        """
        self._tokenizer = load_tokenizer(folder)
        names = {*hidden, *_ending_tokens(folder)}
        ids = {self._tokenizer.token_to_id(name) for name in names}
        self._hidden = ids | _ending_ids(folder)

    def decode(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each completion."""
        shown = [[token for token in completion if token not in self._hidden] for completion in completions]
        return self._tokenizer.decode_batch(shown, skip_special_tokens=False)


def _read(folder: Path, name: str) -> dict[str, object]:
    path = folder / name
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _ending_tokens(folder: Path) -> set[str]:
    """Names of the tokens that begin, end or pad a text; a turn's opening mark is no text either."""
    names = {"<|im_start|>"}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        for key in ("bos_token", "eos_token", "pad_token"):
            value = _read(folder, file).get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                names.add(value)
    return names


def _ending_ids(folder: Path) -> set[int]:
    ids: set[int] = set()
    for file in ("generation_config.json", "config.json"):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = _read(folder, file).get(key)
            ids |= {number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)}
    return ids
