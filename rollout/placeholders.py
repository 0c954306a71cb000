"""Tokens that stand for features of images, video or sound, as a checkpoint's own files name them; without torch.

A sampled or typed one would claim features that do not exist: engines never sample them, the learner gives them no
share in the policy, and a row whose text holds one is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rollout.errors import RolloutError

SPELLINGS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<video>",
)
"""Refused in the texts of rows whatever the model: some family expands each of them, and datasets outlive models."""
_WORDS = frozenset(
    ("image", "images", "img", "video", "vision", "audio", "media", "boi", "eoi", "bov", "eov", "boa", "eoa")
)
_ID_KEY = re.compile(r"_token_(?:id|ids|index)$")
_TOKEN_KEY = re.compile(r"_token$")
_TOKENIZER_PARTS = ("extra_special_tokens", "model_specific_special_tokens")


@lru_cache(maxsize=8)
def placeholder_tokens(folder: Path) -> tuple[str, ...]:
    """Return the placeholders of a Hugging Face folder, SPELLINGS first.

    They are the tokens whose ids config.json names (image_token_id, boi_token_id, ...), those that the files of
    tokenizer and processor name (image_token, ...), and added tokens with such a word in their text.

    Raises:
        RolloutError: the folder has no tokenizer.json, or it does not load.
    """
    tokenizer = _tokenizer(folder)
    found = {tokenizer.id_to_token(index) for index in placeholder_ids(folder)}
    found |= {token for token in _named_tokens(folder) if tokenizer.token_to_id(token) is not None}
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    found |= {token for token in added if _is_of_features(re.sub(r"[^A-Za-z]+", "_", token))}
    return (*SPELLINGS, *sorted(token for token in found - {None, *SPELLINGS} if token))


def placeholder_ids(folder: Path) -> set[int]:
    """Return the ids of placeholders that config.json names, of all its parts; empty where it names none."""
    config = _read(folder / "config.json")
    found: set[int] = set()
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key, value in part.items():
            if _ID_KEY.search(key) and _is_of_features(key):
                found |= {index for index in (value if isinstance(value, list) else [value]) if type(index) is int}
    return found


def banned_token_ids(model_path: Path) -> list[int]:
    """Return the ids of placeholder tokens that a checkpoint's model has a logit for, ascending.

    Engines never sample them, and the learner gives them no share in the policy. A tokenizer may know ids beyond the
    model's vocabulary (InternVL3's `<video>`): there is nothing to sample or to ban there.
    """
    from transformers import AutoConfig

    tokenizer = _tokenizer(model_path)
    num_logits = AutoConfig.from_pretrained(model_path, trust_remote_code=False).get_text_config().vocab_size
    named = {tokenizer.token_to_id(token) for token in placeholder_tokens(model_path)}
    known = {index for index in named | placeholder_ids(model_path) if index is not None}
    return sorted(index for index in known if 0 <= index < num_logits)


def _is_of_features(key: str) -> bool:
    return not _WORDS.isdisjoint(key.lower().split("_"))


def _named_tokens(folder: Path) -> Iterator[str]:
    """Yield the texts of tokens that the settings of tokenizer and processor name."""
    settings, processor = _read(folder / "tokenizer_config.json"), _read(folder / "processor_config.json")
    for part in (settings, *(settings.get(name) for name in _TOKENIZER_PARTS), processor):
        for key, value in part.items() if isinstance(part, Mapping) else ():
            text = value.get("content") if isinstance(value, Mapping) else value
            if _TOKEN_KEY.search(key) and _is_of_features(key) and isinstance(text, str):
                yield text


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise RolloutError(
            f"{folder} has no tokenizer.json; write one with AutoTokenizer.from_pretrained(..).save_pretrained(..)"
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise RolloutError(f"{file} is no tokenizer: {error}") from error


def _read(file: Path) -> Mapping[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, Mapping) else {}
