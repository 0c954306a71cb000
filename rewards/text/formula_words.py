r"""Words and names around a formula: `x is 5`, `there are 12 ways`, `2 root 3`, `y = 3, x = 2`, `0 \le x < 2`."""

import re

from rewards.text.denial import UNSURE
from rewards.text.number_bounds import is_counted
from rewards.text.units import named_unit

_REJECTED = re.compile(
    r"(?<![\\A-Za-z])(?:reject|discard|rul(?:e|es|ed|ing)\s+out|exclud|eliminat|dismiss|disregard|ignor|omit|remov|avoid|delet|cross(?:es|ed|ing)?\s+out|str(?:ik|uck)|throw|instead\s+of|rather\s+than"
    r"|other\s+than|except|besides|without|(?:any|every|no|all|not)\w*(?:\s+\w+)?\s+but|apart\s+from|not\b|never\b"
    r"|extraneous|invalid|impossible|fails?\b|failed\b|(?:does|do|is|are|can|could|would)n't)",
    re.IGNORECASE,
)
_NAME = r"(?:\\?[A-Za-z]+|[A-Za-z])(?:_\{?\w+\}?|')?"
_OF_ONE = re.compile(
    # f(2) = 5; angle 1 = 30 degrees.
    r"(?P<name>[A-Za-z]\s*\(\s*[-0-9.]+\s*\)|(?:\\angle|\u2220)\s*[A-Z0-9]{1,3})\s*=\s*(?P<value>(?:(?!\\angle|\u2220)[^=])+)"
)
_COLON = re.compile(
    r"(?!(?:wrong|not|false|none|no)\b)(?:the\s+)?[A-Za-z]{2,}(?:\s[A-Za-z]+){0,3}\s*:\s*(?=[^:]+$)(?=[-+0-9\\(\[{$\u221a.])"
)
_IS = re.compile(
    r"(?!(?:nothing|none|what|it|not|no|if)\b)([A-Za-z]\w*)\s+(?:is(?:\s+equal\s+to)?|equals)\s+(?=[-+0-9\\(\[{$\u221a.])"
)
_THERE = re.compile(
    r"(?:in\s+total,?\s+)?there\s+(?:is|are|were|will\s+be|must\s+be)\s+(?:exactly\s+|only\s+)?(?=[-+0-9\\$])",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"(?P<number>[0-9][0-9,.]*)\s+(?!other|additional|extra|further|missing|remaining)(?P<what>[a-z]+)(?:\s+[a-z]+)?\s+(?P<things>[a-z]{2,}s)"
)
_WRITTEN = tuple(
    (re.compile(pattern), written)
    for pattern, written in (
        (
            r"\\(?:varnothing|emptyset)(?![A-Za-z])|^(?:[Tt]he\s+)?[Ee]mpty\s+set$|^[Nn]o\s+(?:real\s+)?solutions?$",
            r"\\emptyset ",
        ),
        (r"^[Aa]ll\s+(?:the\s+)?real\s+numbers$|\\mathbb\s+R\b", r"\\mathbb{R}"),
        (r"^(?:positive|plus)\s+(?=infinity$)", ""),
        ("^\u6b63?\u65e0\u7a77\u5927?$", r"\\infty "),
        ("^\u8d1f\u65e0\u7a77\u5927?$", r"-\\infty "),
        (r"^\s*(?:\+-|\+/-)\s*(?=[0-9\\])", r"\\pm "),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"^\\?\{\s*[a-z]\s*(?:\||:|\\mid(?![A-Za-z]))\s*([^{}|:]+?)\s*\\?\}$", r"\1"),
        (r"^[a-z]\s*\\in(?![A-Za-z])\s*(?=[(\[])", ""),
        (r"\\?log_\{?e\}?(?![A-Za-z])", r"\\ln "),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\root\s*(?:\{(\d)\}|(\d))\s*\\of\s*(?:\{([^{}]*)\}|(\w))$", r"\\sqrt[\1\2]{\3\4}"),
        (r"^(angle|triangle)\s+(?=[A-Z]{1,3}$)", r"\\\1 "),
        (r"^(1?[0-9])\s*o'clock$", r"\1:00"),
        (r"(?<=[0-9])\s+degrees?(?=\))", "\u00b0"),
        (r"^([-0-9.,]+)\s*[(\[]((?!(?:or|and)\b)[A-Za-z\u4e00-\u9fff]{1,6}(?:\^[23])?)[)\]]$", r"\1 \2"),
        (r"^([0-9.,]+)-(?=(?:[cmk]m|kg|inch|feet|ft)$)", r"\1 "),
    )
)
"""Words and signs with one spelling in LaTeX."""
_SQUARE_ROOT = re.compile(r"(?<![\\A-Za-z])(?:the\s+)?(?:square\s+)?root(?:\s+of)?\s+(?=[0-9({\\])", re.IGNORECASE)
_CUBE_ROOT = re.compile(r"(?<![\\A-Za-z])(?:the\s+)?cube\s+root(?:\s+of)?\s+(?=[0-9({\\])", re.IGNORECASE)
_TIMES = re.compile(r"(?<=[0-9])\s+times\s+(?=[0-9(\\\u221a\u221b\u03c0]|pi\b)")
_OVER = re.compile(r"((?:[0-9]+\s*)?(?:\\?pi|\u03c0|[a-z])|[0-9]+)\s+over\s+([0-9]+|[a-z])")
_PLUS = re.compile(r"(?<=[0-9)}])\s+(plus|minus)\s+(?=[0-9(\\\u221a])")
_AND_PART = re.compile(r"([0-9]+)\s+and\s+(?=[0-9]+/[0-9]+$)")
_TO = re.compile(r"([0-9]{1,6})\s+to\s+([0-9]{1,6})(?:\s+to\s+([0-9]{1,6}))?")
_ASSIGNMENT = re.compile(rf"\s*(?P<name>{_NAME})\s*=(?P<value>[^=<>]+)")
_SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:and|or)?\b|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*(?=\\?[A-Za-z]\w*\s*=)"
)
_NAMED_TUPLE = re.compile(rf"\(?\s*(?P<names>{_NAME}(?:\s*,\s*{_NAME})+)\s*\)?\s*=\s*\(?(?P<values>[^=()<>]+)\)?")
_SEVERAL = re.compile(r"(?P<name>[A-Za-z])\s*=\s*(?P<values>-?[0-9./]+(?:\s*or\s*-?[0-9./]+)+)")
"""`x = 1 or 2`."""
_ROOT_NAME = re.compile(r"([a-z])_\{?[12]\}?")
_UNIT_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LESS = r"(?P<{0}><=?|\\leq?(?![A-Za-z])|\u2264|\\leqslant)"
_BETWEEN = re.compile(
    rf"(?P<low>[^<>=,]+?)\s*{_LESS.format('first')}\s*[A-Za-z]\s*{_LESS.format('second')}\s*(?P<high>[^<>=,]+)"
)
_ONE_SIDED = re.compile(
    r"[A-Za-z]\s*(?P<sign>[<>]=?|\\[gl]eq?(?:slant)?(?![A-Za-z])|[\u2264\u2265])\s*(?P<bound>[^<>=,]+)"
)
_TURNED = {
    "<": ">", ">": "<", "<=": "\\geq", ">=": "\\leq",
    "\\leq": "\\geq", "\\geq": "\\leq", "\\le": "\\geq", "\\ge": "\\leq",
}  # fmt: skip
_MORE = r"(>=?|\\geq?(?![A-Za-z]))"
_CHAIN = re.compile(rf"([^<>=,]+?)\s*{_MORE}\s*([A-Za-z])\s*{_MORE}\s*([^<>=,]+)")
_ONE_TURNED = re.compile(r"([^<>=,A-Za-z]+?)\s*([<>]=?|\\[gl]eq?(?![A-Za-z]))\s*([A-Za-z])")
_BOTH = re.compile(
    r"([A-Za-z])\s*(?P<sign>>=?|\\geq?(?![A-Za-z]))\s*(?P<bound>[^<>=,]+?)\s*\band\b\s*(?P<rest>\1\s*(?:<|\\le).+)"
)
_UNION = re.compile(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]](?:\s*\\cup\s*[(\[][^()\[\]]*,[^()\[\]]*[)\]])+")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in\s*(?=[(\[\\])")
_INTERVAL = re.compile(r"(?:\\left)?\s*[(\[][^()\[\]]*,[^()\[\]]*[)\]]")
_POINT = re.compile(r"[A-Z]'?\s*(?:\\left)?\s*(?=\([^()]*,[^()]*\)$)")


def is_rejected(text: str) -> bool:
    """Return whether the words around a formula reject it: `discard x = 5`, `other than 5`, `5 fails`.

    Example:
        >>> is_rejected("reject x = 5"), is_rejected("so x = 5")
        (True, False)
    """
    return _REJECTED.search(text) is not None


def in_signs(text: str) -> str:
    r"""Return a formula without words that name it, and with signs for words that stand for some.

    Example:
        >>> in_signs("Area: 5"), in_signs("x equals 5"), in_signs("12 possible outcomes"), in_signs("2 to 3")
        ('5', 'x = 5', '12 outcomes', '2:3')
    """
    text = _COLON.sub(lambda lead: lead[0] if UNSURE.search(lead[0]) else "", text, count=1)
    text = _THERE.sub("", text, count=1)
    text = _IS.sub(r"\1 = ", text, count=1)
    of_one = _OF_ONE.fullmatch(text)
    if of_one is not None:
        return of_one["value"].strip()
    counted = _COUNTED.fullmatch(text)
    if (
        counted is not None
        and named_unit(counted["things"]) is None
        and is_counted(counted["what"])
        and is_counted(counted["things"])
    ):
        return f"{counted['number']} {counted['things']}"
    for pattern, written in _WRITTEN:
        text = pattern.sub(written, text)
    text = _SQUARE_ROOT.sub("\u221a", _CUBE_ROOT.sub("\u221b", text))
    text = _OVER.sub(r"\\frac{\1}{\2}", _TIMES.sub(r"\\times ", text))
    text = _AND_PART.sub(r"\1 ", _PLUS.sub(lambda sign: "+" if sign[1] == "plus" else "-", text))
    ratio = _TO.fullmatch(text)
    if ratio is not None:
        return ":".join(filter(None, ratio.groups()))
    return text


def named_values(text: str) -> tuple[tuple[str, ...], str]:
    r"""Return the names in a list of equations, in order, and their values: a tuple, or a set where all are one name.

    Anything else has no names and stays as it is.

    Example:
        >>> named_values("y = 3, x = 2"), named_values("x = 1 or x = 2")
        ((('x', 'y'), '(2,3)'), (('x',), '\\{1,2\\}'))
    """
    several = _SEVERAL.fullmatch(text)
    if several is not None:
        values = [value.strip() for value in several["values"].split("or")]
        return ((several["name"],), f"\\{{{','.join(values)}\\}}") if len(set(values)) == len(values) else ((), text)
    bound = _NAMED_TUPLE.fullmatch(text)
    if bound is not None:
        names, values = bound["names"].split(","), bound["values"].split(",")
    else:
        parts = [_ASSIGNMENT.fullmatch(part) for part in _SEPARATOR.split(text)]
        found = [part for part in parts if part is not None]
        if len(found) < max(2, len(parts)):
            return (), text
        names, values = [part["name"] for part in found], [part["value"] for part in found]
    names, values = [name.strip() for name in names], [value.strip() for value in values]
    if (
        len(names) != len(values)
        or _UNIT_WORD.search(" ".join(values)) is not None
        or any("," in one for one in values)
    ):
        return (), text
    roots = {root[1] for name in names if (root := _ROOT_NAME.fullmatch(name)) is not None}
    if len(roots) == 1 and len(set(names)) == len(names) and all(map(_ROOT_NAME.fullmatch, names)):
        names = [next(iter(roots))] * len(names)
    if len(set(names)) == 1:
        return (names[0],), f"\\{{{','.join(values)}\\}}"
    if len(set(names)) < len(names) or re.search(r"\bor\b", text) is not None:
        return (), text
    pairs = sorted(zip(names, values, strict=True))
    return tuple(name for name, _ in pairs), f"({','.join(value for _, value in pairs)})"


def in_form_of(latex: str, other: str) -> str:
    r"""Return a formula as another is written: an inequality as an interval, a point without its letter.

    Example:
        >>> in_form_of(r"0 \leq x < 2", "[0,2)"), in_form_of("P(2,3)", "(2,3)"), in_form_of("x > 2", "5")
        ('[0,2)', '(2,3)', 'x > 2')
    """
    if _INTERVAL.fullmatch(other) is None and _UNION.fullmatch(other) is None:
        return latex
    chain = _CHAIN.fullmatch(latex)
    if chain is not None:
        parts = [part.strip() for part in chain.groups()]
        turned = [_TURNED.get(part, part) for part in reversed(parts)]
        latex = " ".join(turned)
    elif (turned_one := _ONE_TURNED.fullmatch(latex)) is not None:
        bound, sign, name = (part.strip() for part in turned_one.groups())
        latex = f"{name} {_TURNED[sign]} {bound}"
    latex = _POINT.sub("", _MEMBER.sub("", latex, count=1), count=1)
    parts = re.split(r"\s*\bor\b\s*", latex)
    if len(parts) > 1 and "\\cup" in other:
        intervals = [in_form_of(part, "(-\\infty,\\infty)") for part in parts]
        return "\\cup ".join(intervals) if all(_INTERVAL.fullmatch(part) for part in intervals) else latex
    both = _BOTH.fullmatch(latex)
    if both is not None:
        latex = f"{both['bound']} {_TURNED[both['sign'].strip()]} {both['rest']}"
    between = _BETWEEN.fullmatch(latex)
    if between is not None:
        opening = "(" if between["first"] == "<" else "["
        closing = ")" if between["second"] == "<" else "]"
        return f"{opening}{between['low'].strip()},{between['high'].strip()}{closing}"
    one_sided = _ONE_SIDED.fullmatch(latex)
    if one_sided is not None and "infty" in other:
        sign, bound = one_sided["sign"], one_sided["bound"].strip()
        is_open = sign in "<>"
        if sign[0] == ">" or sign.startswith("\\g") or sign == "\u2265":
            return f"{'(' if is_open else '['}{bound},\\infty)"
        return f"(-\\infty,{bound}{')' if is_open else ']'}"
    return latex
