"""Check that the tokenizer, the chat template and the settings of a model folder agree."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestration.models.chat_template import PROBE, ChatTemplate
from orchestration.models.files import config_parts, read_object
from orchestration.models.shapes import ModelShape
from orchestration.settings.errors import ConfigError
from rewards.base import RewardError
from rewards.config import RewardConfig
from rewards.tokenizer import load_tokenizer

IMAGE_TOKEN_IDS = {"qwen2_5_vl": 151655, "internvl": 151667}
"""Defaults of transformers where config.json has none."""
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Attributes that InternVLProcessor of transformers 5.19 reads from its tokenizer, and the published tokens."""


def check_opened_thinking(folder: Path, reward: RewardConfig) -> None:
    """Check that chat template and rewards agree on who opens the think block.

    Raises:
        ConfigError: naming the key and the value that agrees.
    """
    opens = ChatTemplate(folder).opens_thinking()
    if opens and not reward.format.think_prefilled:
        raise ConfigError(
            f"reward.format.think_prefilled is false, but the chat template of {folder} ends its prompt with an opened "
            "<think>, so completions only close it and none would count as well formed; set "
            "reward.format.think_prefilled=true"
        )
    if reward.format.think_prefilled and not opens:
        raise ConfigError(
            f"reward.format.think_prefilled is true, but the chat template of {folder} does not end its prompt with an "
            "opened <think>; set reward.format.think_prefilled=false"
        )


def check_tokens(folder: Path, config: Mapping[str, Any], shape: ModelShape) -> None:
    """Check that tokenizer, chat template and config.json agree on the placeholder of an image and on end tokens.

    Raises:
        ConfigError: in one line, naming the file and the remedy.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except RewardError as error:
        raise ConfigError(f"model.path: {error}") from error
    settings_file = folder / "tokenizer_config.json"
    if not settings_file.is_file():
        raise ConfigError(
            f"model.path={folder} holds no tokenizer_config.json; copy the tokenizer's files of the original "
            "checkpoint into it"
        )
    settings = read_object(settings_file)
    if shape.family == "internvl":
        _check_internvl_tokens(settings_file, settings, tokenizer.get_vocab(with_added_tokens=True))

    def token_of(index: Any, key: str, file: str = "config.json") -> str:
        """Return the text of the token that a key of a file names."""
        if type(index) is not int or not 0 <= index < shape.text.vocab_size:
            raise ConfigError(
                f"model.path: {folder / file} says {key}={index}, and the model has ids below "
                f"vocab_size={shape.text.vocab_size}; both must be as published"
            )
        found = tokenizer.id_to_token(index)
        if found is None:
            raise ConfigError(
                f"model.path: {folder / 'tokenizer.json'} has no token of id {index}, which {file} names as "
                f"{key}; copy the tokenizer's files of the original checkpoint"
            )
        return found

    token = token_of(config.get("image_token_id", IMAGE_TOKEN_IDS[shape.family]), "image_token_id")
    generation = folder / "generation_config.json"
    ends = [
        (part.get("eos_token_id"), f"{where}eos_token_id", "config.json") for where, part in config_parts(config, "")
    ]
    if generation.is_file():
        ends.append((read_object(generation).get("eos_token_id"), "eos_token_id", generation.name))
    for named, key, file in ends:
        for index in named if isinstance(named, list) else [] if named is None else [named]:
            token_of(index, key, file)
    placed = ChatTemplate(folder).prompt(PROBE, num_images=1, system_prompt="").count(token)
    if placed != 1:
        raise ConfigError(
            f"model.path={folder}: its chat template puts {placed} {token} in the place of one picture; copy the "
            "template of the original checkpoint, which knows pictures"
        )


def _check_internvl_tokens(file: Path, settings: Mapping[str, Any], vocabulary: Iterable[str]) -> None:
    """Refuse tokenizer files of InternVL's first conversions, which lack what the processor asks for."""
    named: dict[str, Any] = {}
    for part in (settings, settings.get("extra_special_tokens"), settings.get("model_specific_special_tokens")):
        if isinstance(part, Mapping):
            named |= {key: part[key] for key in INTERNVL_TOKENS if part.get(key) is not None}
    missing = {key: token for key, token in INTERNVL_TOKENS.items() if key not in named}
    if missing:
        raise ConfigError(
            f"model.path: {file} does not name {', '.join(missing)}, which transformers' InternVL processor needs; add "
            f"{json.dumps(missing)[1:-1]} to it, or take newer tokenizer files of the checkpoint"
        )
    known = set(vocabulary)
    for key, token in named.items():
        text = token.get("content") if isinstance(token, Mapping) else token
        if text not in known:
            raise ConfigError(
                f"model.path: {file} says {key}={text}, which tokenizer.json does not hold; copy the tokenizer's files "
                "of the original checkpoint"
            )
