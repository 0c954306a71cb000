"""How well the open-ended reward tells captions of the same image from those of another, and what hacks earn.

    python -m tests.benchmarks.table_captions CAPTIONS --embeddings FOLDER [--columns human:model other:model ...]

CAPTIONS holds JSON lines, gzipped or not: {"image": .., "captions": {"writer": "text", ..}}. A column `reference:reply`
takes the first writer's captions as references and the second's as replies. AUC is the chance that a reply about the
same image earns more than one about another image; beside it stands the share of images for which a hack earns at least
what the honest reply earns. `--part 0` and `--part 1` take every other image: settings are chosen on one and told of
the other.
`--idf` weighs words by how many references of the other part hold them.
"""

import argparse
import gzip
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from rewards.core.base import RewardRequest
from rewards.core.config import OpenEndedConfig
from rewards.functions.caption_words import FUNCTION_WORDS, GENERAL_WORDS, is_content_word, word_frequencies, words_of
from rewards.functions.embedding_table import EmbeddingTable
from rewards.functions.open_ended import OpenEndedReward
from rewards.functions.tokenizer import load_tokenizer
from rewards.functions.word_table import WordTable

NUM_OTHERS = 4
LACE = ["the", "with", "a", "and", "of", "in", "on", "near", "that", "to", "for", "its", "from", "by", "at"]
STOP_WORDS = "the a and of with on in at by to is that"
QUESTION = "Describe this image in detail."
PARAGRAPH = (
    "The image shows a scene with several objects and people. There are various elements in the background, and the "
    "overall atmosphere is calm and pleasant. Some items are on the left side, while others are on the right side. In "
    "the foreground, there is a person near a table, and the colors are bright and natural."
)
SHORT_PARAGRAPH = "A person standing next to a table with food in a room."
LISTED = (
    "In this photo there is a man with a dog next to a car, and a woman holds a cup beside a chair. A bottle, a plate "
    "with food and a phone lie on the table, trees and a street are seen through the window, a clock is on the wall."
)
NUMBERS = (
    "There are 1 or 2 main things here, 3 smaller ones behind them, 4 on the left and 5 on the right. The colors are "
    "white, black, red, blue, green, yellow and brown."
)


def keywords(text: str) -> str:
    """Return a caption's words that tell something, once each."""
    return ", ".join(dict.fromkeys(word for word in re.findall(r"\w+", text.lower()) if word not in FUNCTION_WORDS))


def laced(words: Sequence[str], num_words: int) -> str:
    """Return words in turn, each behind a function word, until there are that many."""
    generator = random.Random(num_words)
    return " ".join(f"{generator.choice(LACE)} {words[i % len(words)]}" for i in range(num_words)) if words else ""


def favourites(text: str, number: int) -> list[str]:
    """Return the words that tell something and that a caption uses most."""
    counts = Counter(word for word in words_of(text) if is_content_word(word) and word not in GENERAL_WORDS)
    return [word for word, _ in counts.most_common(number)]


HACKS: dict[str, Callable[[str], str]] = {
    "x 3": lambda text: f"{text} {text} {text}",
    "stop words": lambda text: STOP_WORDS,
    "padded": lambda text: f"{text} {' '.join([STOP_WORDS] * max(1, round(len(text.split()) / 12)))}",
    "question": lambda text: QUESTION,
    "full stop": lambda text: ".",
    "paragraph": lambda text: PARAGRAPH,
    "short paragraph": lambda text: SHORT_PARAGRAPH,
    "things listed": lambda text: LISTED,
    "numbers listed": lambda text: NUMBERS,
    "keywords": keywords,
    "words repeated": lambda text: f"{text} {laced(favourites(text, 3), 40)}",
    "keywords laced": lambda text: laced(kept := keywords(text).split(", "), len(kept)),
}


def main() -> None:
    """Print one table a preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--embeddings", type=Path, help="checkpoint; without it the table of words")
    parser.add_argument("--columns", nargs="+", required=True, help="reference:reply, names of writers")
    parser.add_argument("--part", type=int, choices=(0, 1), default=1)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--idf", action="store_true")
    chosen = parser.parse_args()
    images = read_captions(chosen.captions)
    columns = [tuple(column.split(":")) for column in chosen.columns]
    presets = {"paper": OpenEndedConfig(guards=False), "default": OpenEndedConfig()}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.idf:
            path = Path(folder) / "word_frequencies.json"
            path.write_text(json.dumps(word_frequencies(references(images, columns, 1 - chosen.part))))
            presets["default, idf_path"] = replace(OpenEndedConfig(), idf_path=str(path))
        for name, config in presets.items():
            reward = open_reward(config, chosen.embeddings)
            print(f"\n{name}\n| reference <- reply | images | AUC | " + " | ".join(HACKS) + " |")
            print("|---|---|---|" + "---|" * len(HACKS))
            for reference, reply in columns:
                pairs = list(islice(pairs_of(images, reference, reply, chosen.part), chosen.images))
                area, shares = measure(reward, pairs)
                cells = [
                    f"{reference} <- {reply}",
                    str(len(pairs)),
                    f"{area:.3f}",
                    *(f"{share:.2f}" for share in shares),
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


def read_captions(path: Path) -> list[dict[str, str]]:
    """Return the captions of each image by writer."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["captions"] for line in file]


def pairs_of(images: Sequence[dict[str, str]], reference: str, reply: str, part: int) -> list[tuple[str, str]]:
    """Return (reference, reply) of every other image that both wrote about."""
    both = [(image[reference], image[reply]) for image in images if reference in image and reply in image]
    return both[part::2]


def references(images: Sequence[dict[str, str]], columns: Sequence[tuple[str, ...]], part: int) -> list[str]:
    """Return the references of one part, as a training set of all columns would hold them."""
    return [gold for reference, reply in columns for gold, _ in pairs_of(images, reference, reply, part)]


def open_reward(config: OpenEndedConfig, folder: Path | None) -> OpenEndedReward:
    """Return the reward over a checkpoint's table, or the table of words."""
    if folder is None:
        words = WordTable()
        return OpenEndedReward(config, words.encode, words)
    tokenizer = load_tokenizer(folder)
    table = EmbeddingTable.from_checkpoint(folder)
    return OpenEndedReward(config, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, table)


def measure(reward: OpenEndedReward, pairs: Sequence[tuple[str, str]]) -> tuple[float, list[float]]:
    """Return the AUC and, for each hack, the share of images where it earns at least the honest reply's value."""
    same: list[float] = []
    others: list[float] = []
    hacked = []
    for index, (gold, honest) in enumerate(pairs):
        wrong = [pairs[(index + 1 + 7 * step) % len(pairs)][1] for step in range(NUM_OTHERS)]
        answers = [honest, *wrong, *(hack(honest) for hack in HACKS.values())]
        grades = reward.grade(RewardRequest(task="open", question="", response="", answer=gold), answers)
        values = np.array([grade.value for grade in grades], np.float64)
        same.append(values[0])
        others.extend(values[1 : 1 + NUM_OTHERS])
        hacked.append(values[1 + NUM_OTHERS :] >= values[0])
    differences = np.subtract.outer(np.array(same), np.array(others))
    area = float(((differences > 0) + 0.5 * (differences == 0)).mean())
    return area, np.mean(hacked, axis=0).tolist()


if __name__ == "__main__":
    main()
