"""The tokenizer of a checkpoint, without a deep-learning library."""

from pathlib import Path

from tokenizers import Tokenizer

from rewards.base import RewardError


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Load `tokenizer.json` of a Hugging Face folder.

    Raises:
        RewardError: If the folder has none, or it does not load.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise RewardError(
            f"{folder} has no tokenizer.json; write one with AutoTokenizer.from_pretrained(..).save_pretrained(..)"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise RewardError(f"{path} is no tokenizer: {error}") from error
