"""Plain text of a short answer: one spelling for what Unicode, LaTeX and Markdown write in many ways; and its lists.

Callers cap the length first (a few hundred characters), so that the patterns below stay cheap.
"""

import json
import re
import unicodedata
from collections.abc import Sequence

_SAME_CHARACTER = str.maketrans(
    {
        # Quotes, dashes and slashes that look alike are one character; zero-width ones are none.
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2015": "-", "\u2212": "-",
        "\u3010": "[", "\u3011": "]", "\u300c": '"', "\u300d": '"',
        "\u2044": "/", "\u2215": "/", "\u2236": ":", "\u3002": ".", "\u3001": ",",
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\u00ad": None,
        "\u200e": None, "\u200f": None,
        # Ticks say nothing, crosses say that it is wrong; degree signs that NFKC takes for letters.
        "\u2713": None, "\u2714": None, "\u2705": None, "\u2611": None, "\ufe0f": None,
        "\u2717": " wrong ", "\u2718": " wrong ", "\u274c": " wrong ", "\u2716": " wrong ",
    }
)  # fmt: skip
_SUPERSCRIPTS = re.compile("[\u207a\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_GROUP_SPACE = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
"""Spaces that typographers put between groups of three digits."""
_DEGREE = re.compile("(?<=[0-9])\\s*[\u00ba\u02da]")
"""Signs that people type for the degree sign."""
_TAG = re.compile(r"<(b|i|u|em|strong|span|p)>(.*?)</\1>", re.IGNORECASE)
_STRUCK_OUT = re.compile(r"~~.+?~~")
_VULGAR_AFTER_DIGIT = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215f\u2189])")

_COMMAND = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mbox|emph)\s*\{")
_BRACE = re.compile(r"[{}]")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}")
_LATEX_SYMBOLS = (
    ("\\%", "%"), ("\\$", "$"), ("\\&", "&"), ("\\_", "_"), ("\\#", "#"), ("{,}", ","), ("\\times", "\u00d7"),
    ("\\cdot", "\u00d7"), ("^{\\circ}", "\u00b0"), ("^\\circ", "\u00b0"), ("\\approx", "\u2248"), ("\\,", " "),
    ("\\;", " "), ("\\!", ""), ("\\ ", " "), ("\\(", " "), ("\\)", " "), ("\\[", " "), ("\\]", " "),
)  # fmt: skip
_BOLD = re.compile(r"\*\*([^*]+)\*\*|__([^_]+)__")
_WRAPPERS = (
    ("```", "```"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("*", "*"),
    ("_", "_"), ('"', '"'), ("'", "'"), ("\u00ab", "\u00bb"),
)  # fmt: skip
_PREAMBLE = (
    r"(?:(?:sure|okay|ok|certainly|of\s+course|alright)\b(?:\s*[,:]|\s*!|\.(?=\s))\s*)?"
    r"(?:(?:based\s+on|according\s+to|looking\s+at|judging\s+(?:by|from)|given|from)\s+(?:the|this|your)\s[^.,:;!?()]{1,60}[,:]\s*)?"
)
"""What a polite reply begins with: `Sure! Based on the image, ..`."""
_LEAD = re.compile(
    r"(?:[-+\u2022>]\s+(?=[^\W\d_]{3}))?"
    rf"{_PREAMBLE}(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:"
    r"(?:(?:the|my|our)\s+)?"
    r"(?:(?:final|correct|right|best|closest|nearest|only|appropriate|accurate|suitable|likely|most)\s+){0,3}"
    r"(?:answers?|options?|choices?|result|ans)\b(?:\s+(?:letter|number|choice|option|text|here)\b)?"
    r"(?:\s+to\s+(?:the|your|this)\s+(?:\w+\s+)?question\b)?"
    r"\s*(?:(?:is|are|was|would\s+be|should\s+be|must\s+be)\b\s*:?|:|=>?|->|\u2192)"
    r"|(?:it\s+is|it's|this\s+is)\b|(?<=:\s)(?=\S)|(?<=[,!]\s)(?=(?:yes|no|true|false)\b|\W*[A-Za-z]\W*$)"
    r"|(?:final|correct|solution)\s*:"
    # Therefore / so / from the figure; (right) answer is / option is; (should) choose.
    r"|(?:(?:\u56e0\u6b64|\u6240\u4ee5|\u6545|\u7efc\u4e0a(?:\u6240\u8ff0)?|\u7531\u6b64\u53ef\u77e5)\s*,?\s*)?"
    r"(?:(?:\u6b63\u786e|\u6700\u7ec8|\u672c\u9898)\u7684?)?"
    r"(?:(?:\u7b54\u6848|\u9009\u9879)(?:\u5e94\u8be5?|\u5c31)?(?:\u662f|\u4e3a|\u9009|(?=\s*:))|\u5e94?\u8be5?\u9009\u62e9?(?=\s*[(\[]?[A-Za-z]))"
    r"\s*:?"
    r")\s*",
    re.IGNORECASE,
)
"""Lead phrases before an answer in English and Chinese."""
_HEADING = re.compile(r"^\s*#+\s*(?:final\s+)?(?:answer|solution)\s*:?\s*\n", re.IGNORECASE)
_JSON_ANSWER = re.compile(
    r"\s*\{\s*\"(?:final_)?answer\"\s*:\s*(?P<value>\"(?:[^\"\\]|\\.)*\"|[-0-9.]+)\s*\}\s*", re.IGNORECASE
)
_NAMED = {
    "pi": "\u03c0", "theta": "\u03b8", "alpha": "\u03b1", "beta": "\u03b2", "angle": "\u2220", "infty": "\u221e",
    "le": "\u2264", "leq": "\u2264", "ge": "\u2265", "geq": "\u2265", "ne": "\u2260", "neq": "\u2260", "pm": "\u00b1",
    "sqrt": "\u221a",
    "degree": "\u00b0", "circ": "\u00b0", "triangle": "\u25b3", "to": "\u2192", "rightarrow": "\u2192",
    "dfrac": "\\frac", "tfrac": "\\frac", "left": "", "right": "", "displaystyle": "", "quad": " ", "qquad": " ",
}  # fmt: skip
_NAMED_COMMAND = re.compile(r"\\([a-z]+)")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_ASCII_SIGN = (("<=", "\u2264"), (">=", "\u2265"), ("!=", "\u2260"))
_MATH_DOLLAR = re.compile(r"\$(?![0-9])")
_INDEX = re.compile(r"([_^])\((\w)\)")
"""`H_(2)O`, as `H_2O`."""
_GROUP = re.compile(r"\{([^{}]*)\}(\w?)")
_ONE_TERM = re.compile(r"-?[0-9]+(?:\.[0-9]+)?|[^\W\d_]|\u221a[0-9]+")
_PRODUCT = re.compile(r"[\w.\u221a\u03c0\u00b0^\\]+")
_TIMES = re.compile(r"(?<=[\w)])\s*(?:\*|\u00b7|\u22c5|\bx\b)\s*(?=[0-9(])")
_TIMES_MARKS = frozenset("*x\u00b7\u22c5")
_FREE_BLANK = re.compile(r"\s+(?=[^\w\s])|(?<=[^\w\s])\s+|(?<=[0-9])\s+(?=[^\W\d_])")
_MARKUP = frozenset("\\$*_`\"'\u00ab#{~<")
_FINAL_PUNCTUATION = " \t\r\n.,;:!?"
_ARTICLES = ("the ", "a ", "an ")
_COMMAS = re.compile(r"\s*[;\n]\s*|,\s+(?:and\s+)?|,(?![0-9]{3}(?![0-9]))")
_COMMAS_AND = re.compile(r"\s*[;\n]\s*|,\s+(?:and\s+)?|,(?![0-9]{3}(?![0-9]))|\s+and\s+|\s*&\s*", re.IGNORECASE)
_ALL_COMMAS = re.compile(r"\s*[,;\n]\s*")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|[0-9]{1,2}[.)])\s+", re.MULTILINE)


def unify(text: str) -> str:
    """Return the text in NFKC, with look-alike quotes and dashes unified and superscripts spelled as `^n`.

    Example:
        >>> unify("\uff22 \u2013 5\u00b2")
        'B - 5^2'
    """
    if text.isascii():
        return text
    text = _DEGREE.sub("\u00b0", text)
    text = _GROUP_SPACE.sub(",", _VULGAR_AFTER_DIGIT.sub(" ", text))
    text = _SUPERSCRIPTS.sub(lambda match: "^" + unicodedata.normalize("NFKC", match.group()), text)
    return unicodedata.normalize("NFKC", text).translate(_SAME_CHARACTER)


def unwrap(text: str) -> str:
    r"""Return the text without boxes, font commands, Markdown emphasis, code marks and surrounding quotes.

    Example:
        >>> unwrap(r"$\boxed{\text{B}}$")
        'B'
    """
    text = text.strip()
    if _MARKUP.isdisjoint(text):
        return text
    if "\\" in text or "{," in text:
        text = _without_commands(text)
        text = _FRACTION.sub(lambda match: f"{_term(match[1], _PRODUCT)}/{_term(match[2])}", text)
        for command, plain in _LATEX_SYMBOLS:
            text = text.replace(command, plain)
        text = " ".join(text.split())
    text = _STRUCK_OUT.sub(" ", _TAG.sub(r"\2", text)).strip()
    text = _BOLD.sub(lambda match: match.group(1) or match.group(2), text).lstrip("# ")
    for opening, closing in _WRAPPERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    return text


def _without_commands(text: str) -> str:
    r"""Return the text with `\boxed{x}`, `\text{x}` and the like replaced by x, whatever braces x holds."""
    parts: list[str] = []
    depth_to_drop: list[int] = []
    depth, at = 0, 0
    while (brace := _BRACE.search(text, at)) is not None:
        command = _COMMAND.search(text, at, brace.end()) if brace.group() == "{" else None
        if command is not None and command.end() == brace.end():
            parts.append(text[at : command.start()])
            depth_to_drop.append(depth)
            depth += 1
        elif brace.group() == "{":
            parts.append(text[at : brace.end()])
            depth += 1
        else:
            depth -= 1
            is_dropped = bool(depth_to_drop) and depth_to_drop[-1] == depth
            parts.append(text[at : brace.start() if is_dropped else brace.end()])
            if is_dropped:
                depth_to_drop.pop()
        at = brace.end()
    return text if depth_to_drop else "".join((*parts, text[at:]))


def clean(text: str) -> str:
    """Return the unified, unwrapped text on one line, without lead phrase or final punctuation; case is kept.

    Example:
        >>> clean("The answer is **B**.")
        'B'
    """
    answer = _JSON_ANSWER.fullmatch(text) if "{" in text else None
    text = answer["value"] if answer is not None else _HEADING.sub("", text) if "#" in text else text
    text = " ".join(unify(text).split()).replace(" %", "%")
    for _ in range(4):
        before = text
        text = unwrap(text)
        lead = _LEAD.match(text)
        if lead is not None:
            text = text[lead.end() :]
        text = text.rstrip(_FINAL_PUNCTUATION)
        if text == before:
            break
    return text


def normalise(text: str) -> str:
    """Return `clean(text)` case-folded: the form in which texts are compared.

    Example:
        >>> normalise('"Brazil."')
        'brazil'
    """
    return clean(text).casefold()


def without_article(text: str) -> str:
    """Return a normalised text without its leading article, unless nothing else or no word would remain."""
    for article in _ARTICLES:
        if text.startswith(article) and text[len(article) :][:1].isalpha():
            return text[len(article) :]
    return text


def compact(text: str) -> str:
    r"""Return a normalised text without what sets two spellings of one formula apart: free blanks, braces, commands.

    Example:
        >>> compact(r"\frac{\sqrt{5} - 1}{2}"), compact(r"\dfrac{\sqrt5-1}2"), compact("9673j, 2218n")
        ('(√5-1)/2', '(√5-1)/2', '9673j,2218n')
    """
    if text.replace(" ", "").isalpha():
        return text
    text = _INDEX.sub(r"\1\2", without_latex(text))
    if "=" in text:
        for written, sign in _ASCII_SIGN:
            text = text.replace(written, sign)
    if not _TIMES_MARKS.isdisjoint(text):
        text = _TIMES.sub("\u00d7", text)
    return _FREE_BLANK.sub("", text) if " " in text else text


def without_latex(text: str) -> str:
    r"""Return a normalised text with commands as signs, fractions as quotients and groups in brackets; blanks are kept.

    Example:
        >>> without_latex(r"3 \frac{1}{2} \pi")
        '3 1/2 \u03c0'
    """
    if "\\" in text or "{" in text or "$" in text or "~" in text:
        text = _NAMED_COMMAND.sub(lambda match: _NAMED.get(match[1], match[0]), text.replace("~", " "))
        text = text.replace("$", "") if text.count("$") % 2 == 0 else _MATH_DOLLAR.sub("", text)
        for _ in range(6):
            before = text
            text = _SHORT_FRACTION.sub(lambda m: f"{_term(m[1] or m[2], _PRODUCT)}/{_term(m[3] or m[4])}", text)
            if text == before:
                text = _GROUP.sub(lambda m: f"({m[1]}){m[2]}" if m[2] else _term(m[1]), text)
            if text == before:
                break
    return text


def _term(text: str | None, bare: re.Pattern[str] = _ONE_TERM) -> str:
    """Return a part of a formula, in brackets unless it is one term and needs none."""
    text = (text or "").strip()
    return text if bare.fullmatch(text) else f"({text})"


def read_list(text: str) -> list[str] | None:
    """Return the items of a bracketed list, or None if the text is not one.

    Args:
        text: Of capped length; JSON or bare words between square brackets.

    Example:
        >>> read_list('["a, b", 3]'), read_list("[Brazil, India]"), read_list("Brazil")
        (['a, b', '3'], ['Brazil', 'India'], None)
    """
    text = clean(text)
    if not (text.startswith("[") and text.endswith("]")):
        return None
    if '"' in text:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, list) and not any(isinstance(value, (list, dict)) for value in values):
            return [value if isinstance(value, str) else json.dumps(value) for value in values]
    return split_items(text, None)


def accepted_texts(reference: str) -> list[str]:
    """Return the texts that a reference accepts: itself, or the members of the JSON list that it is.

    Example:
        >>> accepted_texts("3"), accepted_texts('["cat", 3]')
        (['3'], ['cat', '3'])
    """
    if reference.lstrip().startswith("["):
        try:
            values = json.loads(reference)
        except (ValueError, RecursionError):
            return [reference]
        if not any(isinstance(value, (list, dict)) or value is None for value in values):
            return [str(value) for value in values]
    return [reference]


def split_items(text: str, num_items: int | None) -> list[str]:
    """Split a list in words at commas, semicolons, line breaks and `and`.

    Args:
        text: Of capped length.
        num_items: How many items are expected; the first way of splitting that gives as many is taken, so that
            `Bosnia and Herzegovina` stays whole where it must. None splits at commas alone; those inside `1,234` are
            spared where others are followed by a space.
    """
    text = _BULLET.sub("", text.strip()) if "\n" in text else clean(text)
    text = text.strip()
    if text[:1] + text[-1:] in ("[]", "()", "{}"):
        text = text[1:-1]
    if text[:5].casefold() == "both ":
        text = text[5:]
    ways = [_split(pattern, text) for pattern in (_COMMAS, _COMMAS_AND, _ALL_COMMAS)]
    if num_items is None and ", " not in text:
        return ways[-1]
    return next((items for items in ways if len(items) == num_items), ways[0])


def match_items(values: Sequence[Sequence[float]]) -> float:
    """Return the mean value of the pairs if all items can be paired with a value above 0, else 0.

    Args:
        values: [n][n], value of each answer item under each reference item; 0 = wrong.

    Returns:
        In [0, 1]; exactly 1 where every pair of the pairing is worth 1.
    """
    partner_of: dict[int, int] = {}
    for row in range(len(values)):
        if not _augment(row, values, partner_of, set()):
            return 0.0
    return sum(values[row][column] for column, row in partner_of.items()) / len(values)


def _augment(row: int, values: Sequence[Sequence[float]], partner_of: dict[int, int], seen: set[int]) -> bool:
    """Pair `row`, moving earlier pairs where needed (Kuhn's augmenting path)."""
    for column, value in enumerate(values[row]):
        if value > 0.0 and column not in seen:
            seen.add(column)
            if column not in partner_of or _augment(partner_of[column], values, partner_of, seen):
                partner_of[column] = row
                return True
    return False


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    return [item for item in (part.strip().strip("\"'") for part in pattern.split(text)) if item]
