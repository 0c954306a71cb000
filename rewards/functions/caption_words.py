"""Words of a description, and their weights: function words least, words that fit any picture little, others fully.

The lists are English. `word_frequencies` weighs the words of other languages, or of one domain, by how many training
references hold them.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rewards.core.base import RewardError
from rewards.text.plain_text import unify

_FUNCTION_WORDS = """
    a an the this that these those some any no each every all both either neither other another such same own
    and or but nor so yet if as than then while when where which who whom whose what how why because since until
    though although of in on at by to for from with without into onto out off over under above below up down
    about around across along through between among behind beside near next within inside outside during after
    before against toward towards upon per via is are was were be been being am has have had having do does did
    done doing can could may might must shall should will would i me my mine we us our ours you your yours he
    him his she her hers it its they them their theirs one ones not only also too very more most much many few
    several there here just even still again well s t image images picture pictures photo photos photograph
    caption description
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that any text holds."""

NUMBER_WORDS = frozenset(
    ["zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "dozen"]
)

_GENERAL_WORDS = """
    scene scenes view views setting settings background foreground surroundings surrounding environment area
    areas space place places location spot side sides left right center middle front top bottom edge corner part
    parts end distance person people man men woman women individual individuals someone somebody human humans
    group groups crowd pair couple object objects item items thing things element elements detail details
    feature features various different multiple variety number numerous types kind kinds sort lot lots
    collection assortment visible seen shown shows showing show see featuring includes including include
    contains containing depicts depicting captures capturing capture displays displayed appears appear appearing
    seems located positioned placed situated arranged scattered spread surrounded filled standing sitting stands
    sits looking holding wearing engaged enjoying atmosphere mood overall sense feeling impression focus focal
    composition depth context moment activity subject main color colors colored lighting light bright natural
    close closer farther further large small big little larger smaller new old room building buildings outdoor
    outdoors indoor indoors together additionally moreover addition suggests suggesting adding adds add giving
    gives creating create day time pleasant calm relaxed casual ordinary everyday beautiful nice good
    interesting possibly likely perhaps maybe others else nearby presence present indicating indicates suggest
    seem seeming taking taken take making make made lively unique back experience something anything nothing
    everything everyone whole major minor single typical common usual moments life lives world photographer
    camera shot frame framed captured snapshot photography public private local modern lovely attractive
    appealing enjoyable peaceful serene quiet busy vibrant inviting warm cozy clear clearly slightly somewhat
    quite rather fairly mostly mainly generally partly closeup first second third last least half full viewer
    viewers eye eyes attention scenery landscape surface surfaces shape shapes texture textures tone tones
    shadow shadows lit brightness contrast sharp blurred blurry night daytime morning afternoon evening today
    period style design work works working play playing going walking moving resting waiting clothing clothes
    dressed hand hands face faces body bodies
"""
GENERAL_WORDS = frozenset(_GENERAL_WORDS.split())
"""English words of captions that fit nearly every picture: its parts, light and mood, people and what they do."""

_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")


class _WordCharacters(dict[int, int]):
    """For str.translate: letters, marks and digits of any script stay, all else is a blank."""

    def __missing__(self, code: int) -> int:
        kept = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        self[code] = kept
        return kept


_WORD_CHARACTERS = _WordCharacters()


def words_of(text: str) -> list[str]:
    """Return the words of a text, case-folded, without punctuation and special tokens.

    Example:
        >>> words_of("The **dog**, a Beagle, sits.<|im_end|>")
        ['the', 'dog', 'a', 'beagle', 'sits']
    """
    plain = unify(without_special_tokens(text)).casefold()
    return plain.translate(_WORD_CHARACTERS).split()


def is_content_word(word: str) -> bool:
    """Return whether a word of `words_of` is neither a function word nor a number.

    Embeddings of numbers lie so near each other that a reply with a few of them matches every count.
    """
    return not (word in FUNCTION_WORDS or word in NUMBER_WORDS or word.isdecimal())


def function_word_share(words: Sequence[str]) -> float:
    """Return the share of function words among words, in [0, 1]; 0 for none."""
    return sum(word in FUNCTION_WORDS for word in words) / len(words) if words else 0.0


def without_special_tokens(text: str) -> str:
    """Return a text without special tokens (`<|im_end|>`) and with halves of surrogate pairs replaced.

    A tokenizer would refuse the whole text for such a half.
    """
    whole = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return _SPECIAL_TOKEN.sub("", whole)


def word_frequencies(references: Iterable[str]) -> dict[str, object]:
    """Return how many references hold each word, in the form that `reward.open_ended.idf_path` reads.

    Words of one reference alone are left out: a word that is not listed is taken to be rare.
    """
    counts: dict[str, int] = {}
    num_references = 0
    for reference in references:
        num_references += 1
        for word in set(words_of(reference)):
            counts[word] = counts.get(word, 0) + 1
    return {
        "num_references": num_references,
        "words": {word: count for word, count in sorted(counts.items()) if count > 1},
    }


def load_idf(path: str) -> Mapping[str, float]:
    """Return log((N + 1) / (n + 1)) / log(N + 1) of every listed word, in [0, 1), where n of N references hold it.

    Raises:
        RewardError: If the file cannot be read or is not of the form of `word_frequencies`.

    Source:
        BERTScore (Zhang et al., 2020): inverse document frequencies with plus-one smoothing; here divided by their
        greatest value.
    """
    try:
        read = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        total, words = int(read["num_references"]), dict(read["words"])
        if total < 1 or not all(isinstance(count, int) and 0 < count <= total for count in words.values()):
            raise ValueError("counts lie outside of 1..num_references")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RewardError(
            f"reward.open_ended.idf_path {path} cannot be read ({type(error).__name__}: {error}); write what "
            "rewards.functions.caption_words.word_frequencies gives, or leave it empty"
        ) from error
    return {word: math.log((total + 1) / (count + 1)) / math.log(total + 1) for word, count in words.items()}
