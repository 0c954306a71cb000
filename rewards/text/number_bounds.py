"""Words beside a number that bound it, deny it or make another number of it: `at least 4`, `half of 40`."""

import re

from rewards.text.currencies import MARK
from rewards.text.denial import is_number_denied
from rewards.text.number_words import SCALES, number_word

BOUND = re.compile(
    r"(?<!\\)\b(?:not|never|[a-z]+n't|cannot|less|more|fewer|greater|over|under|above|below|beneath|underneath|beyond|within"
    r"|[a-z]{2,}er\s+than|at\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)|up\s*to|exceed(?:s|ed|ing)?"
    r"|upwards?\s+of|(?:in\s+)?excess\s+of|north\s+of|south\s+of|starting\s+(?:at|from)|capped\s+at|limited\s+to"
    r"|as\s+(?:many|much|few|little|high|low|large|great|small)\s+as|between|until|except|anything\s+but|by\s+no\s+means|(?:in\s+)?no\s+way)\b"
    r"|(?<!\\)\b(?:min|max)(?:imum)?\b\.?(?:\s+of)?\s*(?=[-+$\u20ac\u00a3]?[0-9])"
)
"""Words that make a bound, a range or a denial of the number behind them. `about 45` is 45, read as exactly."""
_ANOTHER_BEFORE = re.compile(
    r"\b(?:(?:"
    # Another year: one before or after it, or any but it.
    r"before|after|since|till|through|past|pre|post|(?:prior|opposed)\s+to|(?:previous|next)(?:\s+year)?\s+to|ahead"
    r"|(?!(?:is|are|was|were|be|it|comes?|came|dates?|data|value|number)\b)[a-z]+\s+from|(?:compared|comparison|relative|contrary|contrast)\s+(?:to|with)"
    r"|versus|vs|against|out\s+of|one\s+in(?:\s+every)?|per|than|instead|unlike|besides|barring|exclusive|exception"
    r"|(?:preced|follow|succeed|exclud)(?:e|es|ed|s|ing)|(?:any|every|all|each|none|no|nothing)\w*(?:\s+\w+)?\s+but|without"
    # Another number: a part or a multiple of it, less or more than it, none of it.
    r"|half|twice|thrice|double|triple|treble|quadruple|times|minus|negative|plus|no(?:ne)?|neither"
    r"|root|sqrt|log(?:arithm|2|10)?|ln|lg|exp|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|sine|cosine|tangent|factorial|hardly|barely|scarcely|nowhere\s+near|shy|short|top(?:s|ped|ping)|surpass(?:es|ed|ing)|at\s+(?:the\s+)?(?:be|wor|earlie|late)st"
    r")\b\.?"
    r"|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?\s+of"
    r"|(?:square|cube|reciprocal|inverse|opposite|multiple|fraction)\s+of"
    # The name of a part of a document.
    r"|(?<!\bthe\s)(?:rank(?:ed|ing)?|page|figure|fig|table|slide|section|chapter|appendix|footnote|equation)(?!\s+of\b)\b\.?)"
    rf"(?:\s+(?:of|that|the|these|those|years?))*\s*[-+(\"'~]?{MARK}?$"
)
"""Words that make another number of the one right behind them: half of 40 is not 40, and neither is page 40."""
# What a whole is divided into; plurals take an s.
_PART = (
    r"(?:half|third|quarter"
    r"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|hundred|thousand|[a-z]+illion)th)"
)
_MAKES_ANOTHER = re.compile(
    rf"{_PART}s?|halves|tens|hundreds|[a-z]+tieths?|[a-z]*fold|[a-z]*(?:uple|squar|cub|doubl|tripl|halv|negat|invert|increas"
    r"|decreas|reduc)(?:[sd]|ed)?|plus|minus|times|modulo|mod|negative|positive|inverse|reciprocal|zeros?|zeroes|odd|something"
    r"|factorial|millions?|[a-z]+illions?|lakhs?|crores?|dozens?|pairs?|score|couples?|permil(?:le)?|promille|basis"
)
"""Words that make another number of the one in front of them."""
_ANOTHER_AFTER = re.compile(
    rf"^\s+(?:(?:{_PART}s|halves)\b|(?:and\s+(?:(?:a|one|two|three)\s+)?)?{_PART}s?(?=$|\s+of\b)|and\s+(?:a|one)\s+{_PART}\b)"
    r"|^\s+(?:percentiles?|squared|cubed|doubled|tripled|halved|factorial|minus|divided|multiplied|gross|couples?)\b"
    r"|^\s+(?:short|shy)(?=\W*$|\s+of\b)|^-odd\b|^\s+and\s+(?:change|(?:a\s+)?(?:bit|little|some|few)\b)|^\s+per\s+[0-9]"
    r"|^\s*[x*\u00d7]\s*[0-9]|^-?\s*[a-z]*fold\b|^\s+times\s+(?:as|more|less|fewer|[a-z]+er)\b|^-year-old(?:s\b|\s+[a-z])"
    r"|^\s+(?:reduced|increased|decreased|raised|lowered|cut|split|scaled|grown|shrunk)\s+(?:by|to|in|from)\b"
    r"|^\s*b\.?\s?c(?:\.?\s?e)?\b|^\s*(?:(?:and|or)\s+)?(?:(?:on|for)wards?|on|before)\W*$"
    r"|^\s*(?:(?:to|until|till|through)\s+)?(?:the\s+)?(?:present|now|today)\W*$"
    r"|\bat\s+(?:best|worst)\b|\bat\s+(?:the\s+)?(?:best|worst|earliest|latest|outside)$|\b(?:unless|if|assuming|provided|depending)\b"
)
"""Words that change the number before them or make it a condition: `40 squared`, `2 and a half`, `2014 BC`."""
BOUND_SIGN = re.compile(
    r"!=|[<>]=?\s*(?=[-+$\u20ac\u00a3]?[0-9.])|(?<=[0-9])\s*[<>](?!\s*/)|[\u2264\u2265\u2266\u2267\u226e\u226f\u2a7d\u2a7e\u2260\u226a\u226b]|\\(?:[gl](?:e|t|eq)|neq?)\b"
)
_BOUND_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,2}?(?:or|and|&|/)\s*(?:\w+\s+){0,2}(?:more|less|fewer|above|over|under|below|up|upwards?|down|beyond"
    r"|(?!other|neither|together)[a-z]{2,}er)\b"
    r"|^\W*(?:(?!is\b|was\b)\w+\W+)?(?:plus|upwards?|minimum|max(?:imum)?|tops|and\s+(?:up|counting))\b"
    r"|\bat\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum|min|max)\b|^[\s%]*(?:[^\W\d_]+\s*)?\+|^\W*-\s*$"
)
"""Words that make a bound of the number before them: `45 or more`, `45 at most`."""


def is_another(before: str, number: str, after: str) -> bool:
    """Return whether the words around a number bound or deny it, or make another number of it."""
    return (
        BOUND.search(before + number) is not None
        or _ANOTHER_BEFORE.search(before) is not None
        or _BOUND_AFTER.search(after) is not None
        or _ANOTHER_AFTER.search(after) is not None
        or is_number_denied(before, after)
    )


def is_counted(word: str) -> bool:
    """Return whether a word behind a number may name what is counted: `apples`, not `squared`, `wrong` or `more`.

    Args:
        word: Case-folded, of letters alone.
    """
    return not (
        word in SCALES
        or number_word(word) is not None
        or _MAKES_ANOTHER.fullmatch(word)
        or BOUND.search(word)
        or is_another("", "", f" {word}")
    )
