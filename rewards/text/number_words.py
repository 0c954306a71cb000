"""Numbers in words: `twenty-one`, `a pair`, `two dozen`, Chinese counts; and where `one` is a pronoun."""

import re

SCALES = {
    "hundred": 100, "k": 10**3, "thousand": 10**3, "thousands": 10**3,
    "m": 10**6, "mn": 10**6, "mln": 10**6, "mio": 10**6, "million": 10**6, "millions": 10**6,
    "b": 10**9, "bn": 10**9, "bln": 10**9, "billion": 10**9, "billions": 10**9,
    "tn": 10**12, "trn": 10**12, "trillion": 10**12, "trillions": 10**12,
    "pair": 2, "pairs": 2, "dozen": 12, "dozens": 12, "score": 20,
    "lakh": 10**5, "crore": 10**7, "\u767e": 100, "\u5343": 1000, "\u4e07": 10**4,
    "\u4ebf": 10**8, "\u767e\u4e07": 10**6, "\u5343\u4e07": 10**7,
}  # fmt: skip
COUNTERS = (
    "\u4e2a\u500b\u540d\u4f4d\u4eba\u53ea\u96bb\u6761\u689d\u79cd\u7a2e\u672c\u5f20\u5f35\u8f86\u53f0\u5bb6\u6237\u5957\u68f5\u6735\u4ef6\u652f\u679d\u6839\u5757\u7247\u5934\u5339\u5c81\u6b21\u573a\u90e8\u5ea7\u6240\u9897\u7c92"
    "\u628a\u67b6\u8258\u680b\u95f4\u6247\u9876\u76c6\u74f6\u676f\u7897\u76d8\u76d2\u7bb1\u7c7b\u9879\u7ec4\u9762\u884c\u5217\u6b65\u6b3e\u80a1"
)
"""Chinese words between a number and what it counts; those of two, ten or twelve things are none of them."""
CHINESE_THING = (
    # Not: ten, hundred, thousand, .., times, or, about, at least, before, after, part, half, and, plus, minus.
    "(?!\u65b9)[^\\W0-9a-z\u5341\u767e\u5343\u4e07\u4ebf\u500d\u4ee5\u591a\u6216\u5de6\u5c11\u7b2c\u5206\u4e0d\u5230\u81f3\u534a\u51e0\u548c\u6ca1\u65e0"
    "\u4e0e\u52a0\u51cf\u4e58\u9664\u6bd4\u8d85\u5347\u964d\u589e\u8dcc\u8fd8\u4e4b\u6298\u6210\u5185\u5916\u524d\u540e]{0,8}"
)
"""A pattern of what is counted, without words that make another number of the one before."""
GROUPS = frozenset(("pair", "pairs", "dozen", "dozens", "score"))
"""Those that are counted in words as well: `two dozen`, `a pair`."""
_SMALL_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_NUMBER_WORD = rf"(?:{'|'.join(_SMALL_WORDS)}|hundred|thousand|million|billion|pairs?|dozens?|score)"
_IN_WORDS = re.compile(
    rf"(?<![\w'])(?:an?\s+single(?=\s)|(?:an?\s+)?{_NUMBER_WORD}(?:(?:[\s-]+|\s+and\s+){_NUMBER_WORD})*)(?![\w']|-[a-z])"
)
_HAS_WORD = re.compile(rf"\b(?:{_NUMBER_WORD}|single)\b")
_NO_NUMBER_BEFORE = re.compile(
    r"(?:[0-9%.]|\b(?:the|this|that|which|each|every|no|not|single|any|another|other|left|right|[0-9]+(?:st|nd|rd|th)|first|second|third|last"
    r"|only\s+the|bottom|top|half|quarter))[\s-]*$"
)
"""In front of `one`, `a pair` or a scale word: it is a pronoun, a noun, or the scale of a number in digits."""
_PRONOUN = re.compile(
    r"(?<!only )(?<!just )(?<!exactly )one\s+of\s+(?!them\b|(?:these|those)$)"
    r"|one\s+(?:cannot|can\s+not|\w+n't|(?:can|could|would|should|might|may|must|will|shall)\b(?!\s+be\b)|(?:has|needs|ought)\s+to\b|needs\b|(?:never|always|often|usually|seldom)\b)"
)
"""`One cannot tell`, `one of several`: nothing is counted."""
_KNOWN_BEFORE = re.compile(r"\b(?:the|both|these|those|all|first|last|top|other|next|previous|which|that)\s+$")
"""In front of a number in words: it says how many there are of what is known already: `the two bars reach 45`."""
_JOINED_BEFORE = re.compile(
    r"[0-9][^0-9]*[:(]\s*$|[0-9]\s+[a-z-]+(?:\s*,|\s+or)\s*$|[0-9][^0-9]*\band\s+$|[0-9]\s*(?:,|or|to|and|less|minus|plus|times|over|by|/|-|vs\.?|versus|,?\s*(?:or\s+)?(?:maybe|perhaps|possibly))\s*$"
)
_JOINED_BEHIND = re.compile(r"\s*(?:,|or|to|of|/|-|vs\.?|versus)\s*[0-9]")
_ABOUT = re.compile(
    r"(?:(?:about|approximately|around|roughly|nearly|almost|circa|some|exactly|just|only)\s+)?(?P<number>.*?)"
    r"(?:%|\s(?:percent|per\scent|pct))?"
)
_SIGN = re.compile(r"-|(?:minus|negative)\s+")
_PART_NAMES = ("half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_PART_IN_WORDS = re.compile(
    r"(?P<sign>minus\s+|negative\s+|-)?(?:(?P<whole>[a-z-]+)\s+and\s+)?(?:(?P<count>[a-z]+)[\s-]+)?"
    rf"(?P<name>{'|'.join(_PART_NAMES)})s?(?:\s+(?:of\s+)?an?\s+(?P<scale>hundred|thousand|million|billion))?"
)
_AN = re.compile(r"^an?$")
_DIGIT = re.compile("[0-9]")
_CHINESE_DIGITS = {
    char: value for value, char in enumerate("\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d")
} | {"\u4e24": 2}
_CHINESE_DIGIT = f"[{''.join(_CHINESE_DIGITS)}]"
_CHINESE_NONE = re.compile(
    # (In the picture) there is none, not: no way, no other, no picture, no answer, no information.
    r"(?:\u56fe[\u7247\u50cf]?|\u7167\u7247|\u753b\u9762)?[\u4e2d\u91cc\u4e0a]?"
    r"(?:\u6ca1\u6709|\u65e0|\u6709?\u96f6)(?!\u6cd5|\u5176|\u522b|\u56fe|\u7167\u7247|\u7b54\u6848|\u4fe1\u606f|\u529e\u6cd5|\u63d0\u4f9b|\u8db3\u591f)"
    rf"{CHINESE_THING}"
)
_CHINESE_LEAD = re.compile(
    # (In) the year; .. is, equals, has, together, about, reaches, gives, choose, answer, solution.
    r"(?:\u5728?[12][0-9]{3}\u5e74,?)?[\u3400-\u9fff,]{0,16}?"
    r"(?:(?:\u662f|\u4e3a|\u7b49\u4e8e|\u6709|\u5171|\u8ba1|\u7ea6|\u8fbe\u5230?|\u5f97|\u9009|\u7b54|\u89e3|\u6240\u4ee5|\u56e0\u6b64|\u6545|\u5219|\u5373)[:,]?|:)\s*"
    rf"(?=[-+$\\0-9.(\u221a\u767e{''.join(_CHINESE_DIGITS)}\u5341]|[a-zA-Z]\s*=)"
)
_NO_LEAD = re.compile(
    # Not, no, if, false, perhaps, or, half, times, near, rest, from, at most, at least, another.
    "[\u4e0d\u6ca1\u975e\u65e0\u672a\u82e5\u5047\u9519\u6216\u500d\u534a\u8fd1\u5269\u4ece\u8fd8\u53e6\u7b2c]|\u5176[\u4f59\u4ed6]|\u5982\u679c|\u53ef\u80fd|\u4e5f\u8bb8|[\u6700\u81f3]\u5c11(?!\u7684)|[\u6700\u81f3]?\u591a(?:\u8fbe|\u4e3a)|\u6700\u591a(?!\u7684)|\u81f3\u591a"
)
_CHINESE_NUMBER = re.compile(
    rf"(?P<percent>\u767e\u5206\u4e4b)?(?P<words>[{''.join(_CHINESE_DIGITS)}\u5341\u767e\u5343\u4e07\u4ebf]+|[0-9.]+(?=$))"
)
_SECTION = re.compile(
    rf"\u96f6?(?:({_CHINESE_DIGIT})\u5343\u96f6?)?(?:({_CHINESE_DIGIT})\u767e\u96f6?)?(?:({_CHINESE_DIGIT}?)(\u5341))?({_CHINESE_DIGIT})?"
)
_EDGES = "()[]{}\"'*,;:!?#\u2248~="


def is_in_words(text: str) -> bool:
    """Return whether a text spells a number in words and nothing else: `about thirty-five percent`, `a hundred`.

    Args:
        text: Through `plain_text.normalise`.
    """
    spelled = _ABOUT.fullmatch(text.strip(_EDGES))
    return spelled is not None and number_word(_SIGN.sub("", spelled["number"], count=1)) is not None


def in_digits(text: str) -> str:
    """Return a text with its numbers in words as digits: `five or six` is `5 or 6`.

    Where `one`, a pair or `the two` is no answer beside another number (`the left one is 45`), it stays as it is.

    Args:
        text: Through `plain_text.normalise`.

    Example:
        >>> in_digits("there are twenty-one dogs"), in_digits("five or 6"), in_digits("the left one is 45")
        ('there are 21 dogs', '5 or 6', 'the left one is 45')
    """
    if _HAS_WORD.search(text) is None:
        return text
    parts: list[str] = []
    soft: list[int] = []
    at = 0
    for match in _IN_WORDS.finditer(text):
        before, number = text[at : match.start()], match.group()
        words = number.split()
        if number == "one" and _PRONOUN.match(text, match.start()) is not None:
            continue
        is_soft = number == "one" or words[-1] == "single" or (words[-1] in GROUPS and words[0] in ("a", "an", *GROUPS))
        if (is_soft or words[0] in SCALES) and _NO_NUMBER_BEFORE.search(text[: match.start()]) is not None:
            continue
        is_soft = is_soft or _KNOWN_BEFORE.search(text[: match.start()]) is not None
        if is_soft:
            soft.append(len(parts) + 1)
        parts += [before, number if is_soft else _digits(number)]
        at = match.end()
    parts.append(text[at:])
    for place in soft:
        before, behind = "".join(parts[:place]), "".join(parts[place + 1 :])
        is_only = _DIGIT.search(before + behind) is None
        is_one_of = behind.startswith((" of ", " who", " which", " that"))
        if is_only or (_JOINED_BEFORE.search(before) and not is_one_of) or _JOINED_BEHIND.match(behind):
            parts[place] = _digits(parts[place])
    return "".join(parts)


def _digits(words: str) -> str:
    """Return a run of number words in digits; what does not add up to one number stays several."""
    number = 1 if words.endswith("single") else number_word(words)
    if number is not None:
        return str(number)
    pieces = re.split(r"(\s+and\s+|[\s-]+)", words)
    for end in range(len(pieces) - 2, 0, -2):
        number = number_word("".join(pieces[:end]))
        if number is not None:
            return f"{number}{pieces[end]}{_digits(''.join(pieces[end + 1 :]))}"
    return words if len(pieces) < 3 else pieces[0] + pieces[1] + _digits("".join(pieces[2:]))


def number_word(text: str) -> int | None:
    """Return the whole number that English words spell, below a million million; None for anything else.

    Args:
        text: Case-folded.

    Example:
        >>> number_word("three"), number_word("one hundred and forty-five"), number_word("cat")
        (3, 145, None)
    """
    words = text.replace("-", " ").split()
    if len(words) > 1 and words[0] == "a" and words[1] in SCALES:
        words[0] = "one"
    if not words or len(words) > 16 or words[0] == "and" or words[-1] == "and":
        return None
    total, part, last = 0, -1, 10**12
    for word in words:
        if word == "and" and (part >= 100 or (part < 0 and total)):
            continue
        if word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in GROUPS and word == words[-1] and not total and 0 < part < 100:
            part *= SCALES[word]
        elif word in ("thousand", "million", "billion") and part > 0 and SCALES[word] < last:
            last = SCALES[word]
            total, part = total + part * last, -1
        elif word in _SMALL_WORDS:
            number = _SMALL_WORDS[word]
            # `forty five` adds up, `five forty` and `twenty twenty` do not.
            if part > 0 and not (number and (part % 100 == 0 or (part % 10 == 0 and part % 100 >= 20 and number < 10))):
                return None
            if part == 0 or (part < 0 and total and number == 0):
                return None
            part = max(part, 0) + number
        else:
            return None
    return total + max(part, 0)


def part_in_digits(text: str) -> str:
    """Return a fraction in words as a quotient; any other text as it is.

    Args:
        text: Case-folded.

    Example:
        >>> part_in_digits("three quarters"), part_in_digits("minus two and a half"), part_in_digits("half a million")
        ('3/4', '-5/2', '1/2 million')
        >>> part_in_digits("a third"), part_in_digits("third"), part_in_digits("half of 40")
        ('1/3', 'third', 'half of 40')
    """
    match = _PART_IN_WORDS.fullmatch(text.replace("halves", "half").replace("fourth", "quarter"))
    if match is None:
        return text
    counts = [0 if word is None else number_word(_AN.sub("one", word)) for word in match.group("whole", "count")]
    size = _PART_NAMES.index(match["name"]) + 2
    if counts[0] is None or counts[1] is None or not (match["count"] or size == 2):
        return text
    top = counts[0] * size + (counts[1] or 1)
    return f"{'-' if match['sign'] else ''}{top}/{size}{' ' + match['scale'] if match['scale'] else ''}"


def from_chinese(text: str) -> str:
    """Return a short Chinese answer as its number in digits and what stands behind it: `there are twelve people`.

    Args:
        text: On one line, without full stop. One that says anything else is returned as it is.

    Example:
        >>> from_chinese("\u56fe\u4e2d\u6709\u5341\u4e8c\u4e2a\u4eba"), from_chinese("\u767e\u5206\u4e4b\u56db\u5341")
        ('12\u4e2a\u4eba', '40%')
    """
    if text.isascii():
        return text
    lead = _CHINESE_LEAD.match(text)
    if lead is not None and _NO_LEAD.search(lead.group()) is None:
        text = text[lead.end() :]
    number = _CHINESE_NUMBER.match(text)
    value = None if number is None else _chinese_value(number["words"])
    if number is None or (value is None and not number["percent"]):
        return text
    return f"{number['words'] if value is None else value}{'%' if number['percent'] else ''}{text[number.end() :]}"


def says_none_in_chinese(text: str) -> bool:
    """Return whether a text says in Chinese that there is none of a kind."""
    return not text.isascii() and _CHINESE_NONE.fullmatch(text) is not None


def _chinese_value(words: str) -> int | None:
    """Return the number of Chinese numerals; None where they spell no single one, as `four five` do not."""
    for size, scale in ((10**8, "\u4ebf"), (10**4, "\u4e07")):
        if scale in words:
            high, _, low = words.partition(scale)
            values = _chinese_value(high), _chinese_value(low) if low else 0
            return None if values[0] is None or values[1] is None else values[0] * size + values[1]
    section = _SECTION.fullmatch(words)
    if section is None or not words:
        return None
    thousands, hundreds, tens, ten, ones = section.groups()
    digits = (thousands, hundreds, (tens or "\u4e00") if ten else "", ones)
    return sum(
        int(10**power) * _CHINESE_DIGITS.get(digit or "", 0) for power, digit in zip((3, 2, 1, 0), digits, strict=True)
    )
