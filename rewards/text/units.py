"""Units at the end of a number: which there are, what they measure, how they compare.

Sizes are exact, so that `80 mm` is `8 cm` and not something near to it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.text.currencies import CURRENCIES, are_one_currency
from rewards.text.number_bounds import is_counted
from rewards.text.number_words import CHINESE_THING, COUNTERS

_BASES: dict[str, dict[str, str | int]] = {
    # Dimension: {size in its base unit: names}. A name in Latin letters of three or more also takes a plural s.
    "length": {
        "1/1000": "mm millimeter millimetre 毫米", "1/100": "cm cms centimeter centimetre 厘米 公分",
        "1/10": "dm decimeter decimetre 分米", "1": "m meter metre 米", "1000": "km kms kilometer kilometre 千米 公里",
        "1852": "海里 nmi nauticalmile", "9460730472580800": "lightyear 光年",
        "127/5000": "in inch inches 英寸", "381/1250": "ft foot feet 英尺",
        "1143/1250": "yd yard 码", "201168/125": "mi mile 英里", "1/1000000": "μm micrometer micrometre 微米",
        "1/1000000000": "nm nanometer nanometre 纳米",
    },
    "area": {"10000": "ha hectare 公顷", "316160658/78125": "acre 英亩"},
    "volume": {"1/1000": "l L liter litre 升", "1/1000000": "ml mL milliliter millilitre 毫升 cc"},
    "mass": {
        "1": "g gram gramme 克", "1000": "kg kgs kilogram kilo 千克 公斤", "1/1000": "mg milligram 毫克",
        "1/1000000": "μg microgram",
        "1000000": "ton tonne 吨", "45359237/100000": "lb lbs pound 磅",
    },
    "time": {
        "1": "s sec second 秒 秒钟", "60": "min mins minute 分 分钟", "3600": "h hr hrs hour 小时 时",
        "86400": "d day 天 日", "604800": "week 周 星期", "1/1000": "ms millisecond 毫秒",
        "1/1000000": "μs microsecond", "1/1000000000": "ns nanosecond",
    },
    "month": {"1": "month 月 个月", "12": "year yr yrs 年"},
    "angle": {"1": "° deg degree 度"},
    "radian": {"1": "rad radian 弧度"},
    "temperature in celsius": {"1": "°C ℃ celsius 摄氏度"},
    "temperature in fahrenheit": {"1": "°F ℉ fahrenheit 华氏度"},
    "temperature": {"1": "K kelvin"},
    "force": {"1": "N newton 牛 牛顿", "1000": "kN kilonewton 千牛"},
    "energy": {
        "1": "J joule 焦 焦耳", "1000": "kJ kilojoule 千焦", "3600": "Wh", "3600000": "kWh 千瓦时",
        "523/125": "cal calorie 卡",
        "4184": "kcal kilocalorie 千卡 大卡",
    },
    "data": {"1": "byte", "1/8": "bit", "1000": "kilobyte", "1000000": "megabyte", "1000000000": "gigabyte"},
    "part": {"1": "ppm", "1/1000": "ppb"},
    "permille": {"1": "permille permil promille"},
    "power": {"1": "W watt 瓦 瓦特", "1000": "kW kilowatt 千瓦", "1000000": "MW megawatt"},
    "voltage": {"1": "V volt 伏 伏特", "1000": "kV kilovolt", "1/1000": "mV millivolt"},
    "current": {"1": "A amp ampere 安 安培", "1/1000": "mA milliampere 毫安"},
    "resistance": {"1": "Ω Ω ohm 欧 欧姆", "1000": "kΩ kΩ kiloohm"},
    "pressure": {"1": "Pa pascal 帕", "1000": "kPa kilopascal", "1000000": "MPa megapascal"},
    "frequency": {"1": "Hz hertz 赫兹", "1000": "kHz kilohertz", "1000000": "MHz megahertz"},
    "amount": {"1": "mol mole 摩尔"},
    "basis point": {"1": "basispoint bp bps"},
    "speed": {"5/18": "kmh kph kmph", "1397/3125": "mph"},
    "C": {"1": "C"},
    "F": {"1": "F"},
    "": {"1": f"unit 单位 {' '.join(COUNTERS)}"},
}  # fmt: skip
"""Dimension "" is that of a bare count."""
_LETTERS = {"C": ("temperature in celsius", "charge"), "F": ("temperature in fahrenheit", "capacitance")}
"""What a lone letter may stand for."""
_PREFIXES: dict[str, int | Fraction] = {
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "m": Fraction(1, 10**3), "μ": Fraction(1, 10**6),
    "n": Fraction(1, 10**9), "p": Fraction(1, 10**12),
}  # fmt: skip
_PREFIXED: dict[str, tuple[str, int | Fraction]] = {
    "W": ("power", 1), "Wh": ("energy", 3600), "J": ("energy", 1), "eV": ("electronvolt", 1), "V": ("voltage", 1),
    "A": ("current", 1), "Pa": ("pressure", 1), "Hz": ("frequency", 1), "N": ("force", 1),
    "B": ("data", 1), "b": ("data", Fraction(1, 8)), "bps": ("data rate", 1),
    "F": ("capacitance", 1), "C": ("charge", 1), "mol": ("amount", 1), "Ω": ("resistance", 1),
    "g": ("mass", 1),
}  # fmt: skip
_UNITS = {
    name: (dimension, Fraction(size))
    for dimension, names_of in _BASES.items()
    for size, names in names_of.items()
    for name in str(names).split()
}
_UNITS.update({name: (money, Fraction(1)) for money, names in CURRENCIES.items() for name in names.split()})
_UNITS.update(
    {name: (money, Fraction(size)) for name, money, size in (
        ("万元", "yuan", "10000"), ("cent", "dollar", "1/100"), ("\u00a2", "dollar", "1/100"),
        ("pence", "pound sterling", "1/100"),
    )}
)  # fmt: skip
_UNITS.update(
    {
        f"{prefix}{name}": (dimension, Fraction(factor * size))
        for name, (dimension, size) in _PREFIXED.items()
        for prefix, factor in _PREFIXES.items()
        if f"{prefix}{name}" not in _UNITS
    }
)
_MONEY = [money for money in CURRENCIES if " " in money and " or " not in money]
_LONG_NAMES = ("nautical mile", "basis point", "light year", *_MONEY)
_UNITS.update({money.replace(" ", ""): (money, Fraction(1)) for money in _MONEY})
_UNITS.update({f"{name}s": unit for name, unit in list(_UNITS.items()) if len(name) > 2 and name.isascii()})
_COMPOSED = {
    "area": (("length", 2),),
    "volume": (("length", 3),),
    "speed": (("length", 1), ("time", -1)),
    "energy": (("power", 1), ("time", 1)),
}
_AMBIGUOUS = frozenset("mshgldLNJWVAKCF")
"""Names that are also letters of algebra: a unit only behind a number without any letters."""
_POWER_WORDS = {"square": 2, "sq": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}

_ATOM = r"(?:°[CF]?|[^\W\d_]+)"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[1-9]\s*\}|-?[1-9])|[23])?"
_TAIL = re.compile(
    rf"(?<![^\W\d_\\])(?<!\\)(?P<unit>(?:(?:square|cubic|sq|cu)\b\.?\s*)?{_ATOM}{_POWER}"
    rf"(?:\s*(?:/|\\cdot|\bper\b)\s*{_ATOM}{_POWER}|\s+{_ATOM}\s*\^\s*(?:\{{\s*-[1-9]\s*\}}|-[1-9]))*)\.?\s*$",
    re.IGNORECASE,
)
_FACTOR = re.compile(
    rf"(?P<sep>/|\\cdot|per\b)?\s*(?P<word>(?:square|cubic|sq|cu)\b\.?|平方|立方)?\s*"
    rf"(?P<atom>{_ATOM})\s*(?:\^\s*\{{?\s*(?P<power>-?[1-9])\s*\}}?|(?P<plain>[23]))?\s*",
    re.IGNORECASE,
)
_POWERS_BEHIND = {"squared": 2, "cubed": 3}
_POWER_BEHIND = re.compile(r"([^\W\d_]+)\s+(squared|cubed)\b")
"""`meters per second squared`."""
_PER_SECOND = re.compile(r"(?<=[0-9}\s])(k?m)s(?=\s*\^\s*\{?\s*-)")
"""`ms^{-1}`: no milliseconds."""
_NAMED_DEGREE = re.compile(r"(?:\u00b0|degrees?)\s*(c(?:elsius)?|f(?:ahrenheit)?)(?![^\W\d_])", re.IGNORECASE)
_OF_WORDS = re.compile(
    r"\b(?:" + "|".join(_LONG_NAMES).replace(" ", r"\s+") + r")(?=s?\b)",
    re.IGNORECASE,
)
"""Units whose names have a blank; in the table they have none."""
_PRODUCT = re.compile(r"([a-z]{3,})(?:\s+|-)([a-z]{3,})")
"""`kilowatt hours`, `newton-metres`."""
_CHINESE_NAMES = [name for name in _UNITS if not name.isascii() and name.isalpha()]
CHINESE_BEHIND = re.compile(
    rf"(?P<scale>[\u767e\u5343]?[\u4e07\u4ebf]|[\u767e\u5343])??"
    rf"(?P<power>\u5e73\u65b9|\u7acb\u65b9)?(?P<unit>{'|'.join(sorted(_CHINESE_NAMES, key=len, reverse=True))})?"
    rf"(?(unit)(?:(?<!\u5e74){CHINESE_THING})?|)(?:\u5de6\u53f3)?"
)
"""What may stand behind a number in Chinese: a scale, a unit and what is counted; about."""
_FOLDED = frozenset(name.casefold() for name in _UNITS)
_GLUED = re.compile(
    r"[-/]?([a-z]*[^\W\d_a-z][^\W\d_]*(?:\^?-?[0-9]+)?|[a-z]+(?:\^-?)?[0-9]+)|[\s%]+([\u3040-\u30ff\u4e00-\u9fff]+)"
)
"""Behind a number: letters of other scripts, letters with a number behind them, Chinese or Japanese."""
_COUNTED = re.compile(r"[^\W\d_\u3040-\u30ff\u4e00-\u9fff]+")
_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[^\W\d_]")
_VALUE = re.compile(r"[0-9]|\\(?:pi|infty|sqrt)")


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a number.

    Example:
        >>> split_unit("36 cm^2")[1].measures_as(split_unit("0.0036 square metres")[1])
        True
    """

    dimension: tuple[tuple[str, int], ...]
    """Base quantities and their powers; a bare count (units, apples) has none."""
    size: Fraction
    """In base units, as a factor."""

    def measures_as(self, other: "Unit | None") -> bool:
        """Return whether the two may be compared: the same quantity, or a unit on one side only."""
        if other is None or not self.dimension or not other.dimension or self.dimension == other.dimension:
            return True
        for letter, meant in ((self, other), (other, self)):
            if meant.dimension[0][0] in _LETTERS.get(letter.dimension[0][0], ()):
                return len(meant.dimension) == 1
        if len(self.dimension) != 1 or len(other.dimension) != 1:
            return False
        (name, power), (other_name, other_power) = self.dimension[0], other.dimension[0]
        is_one_currency = power == other_power == 1 and are_one_currency(name, other_name)
        return is_one_currency or self._is_pound_of(other) or other._is_pound_of(self)

    def factor_to(self, other: "Unit") -> Fraction:
        """Return what a number in this unit is multiplied by to be in another that measures the same."""
        return Fraction(1) if self._is_pound_of(other) or other._is_pound_of(self) else self.size / other.size

    def _is_pound_of(self, money: "Unit") -> bool:
        """Return whether this is a pound of mass, whose name is that of the pound sterling too."""
        return self == _POUND and money.dimension == (("pound sterling", 1),)


_POUND = Unit((("mass", 1),), Fraction("453.59237"))


def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""Return a number or formula without the unit at its end, and that unit; the text and None if it has none.

    Args:
        text: LaTeX or plain, of capped length, with neither font commands nor a bare pi in it.

    Example:
        >>> split_unit(r"9\pi cm^{2}")[0], split_unit("2x")[0]
        ('9\\pi', '2x')
    """
    text = _PER_SECOND.sub(r"\1 s", text)
    text = _POWER_BEHIND.sub(
        lambda behind: f"{behind[1]}^{_POWERS_BEHIND[behind[2]]}" if behind[1] in _UNITS else behind[0], text
    )
    text = _NAMED_DEGREE.sub(lambda named: f"\u00b0{named[1][0].upper()}", text)
    text = _spelled_as_one(text)
    match = _TAIL.search(text)
    if match is None:
        return text, None
    value = text[: match.start()].strip()
    last = value.rpartition("=")[2]
    if _VALUE.search(last) is None:
        return text, None
    has_letters = _LETTER.search(_LATEX_COMMAND.sub(" ", last)) is not None
    spelled = match["unit"].replace("\u6bcf", "/")
    unit = _read_unit(spelled)
    chinese = CHINESE_BEHIND.fullmatch(spelled)
    if unit is None and chinese is not None and chinese["unit"] and not chinese["scale"]:
        unit = _read_unit(f"{chinese['power'] or ''}{chinese['unit']}")
    if unit is None:
        # A word that is no unit names what is counted: `5 apples`.
        is_count = (
            not has_letters and len(spelled) > 2 and _COUNTED.fullmatch(spelled) and is_counted(spelled.casefold())
        )
        name = spelled.casefold().removesuffix("s")
        return (value, Unit(((name, 1),), Fraction(1))) if is_count else (text, None)
    return (text, None) if has_letters and spelled in _AMBIGUOUS else (value, unit)


def named_unit(name: str) -> Unit | None:
    """Return the unit of a name, or None; one in Chinese may be followed by what is counted."""
    known = _UNITS.get(name.casefold())
    if known is not None:
        return Unit(((known[0], 1),), known[1])
    return _read_unit(name) if name else None


def may_follow_number(text: str) -> bool:
    """Return whether what stands right behind a number may be a unit or a thing, not a bound or another number.

    Args:
        text: Case-folded. Of other scripts and of words with digits only what is known may follow.

    Example:
        >>> may_follow_number("km2"), may_follow_number("or54"), may_follow_number("\u4ee5\u4e0a")
        (True, False, False)
    """
    glued = _GLUED.match(text)
    if glued is None:
        return True
    run = glued[1] or glued[2]
    return (
        CHINESE_BEHIND.fullmatch(run) is not None or run in _FOLDED or (run.isascii() and _read_unit(run) is not None)
    )


def _spelled_as_one(text: str) -> str:
    """Return a text with the units that have two names as one: `light years`, `kilowatt hours`."""
    text = _OF_WORDS.sub(lambda name: "".join(name[0].casefold().split()), text)
    return _PRODUCT.sub(
        lambda pair: f"{pair[1]} \\cdot {pair[2]}" if pair[1] in _UNITS and pair[2] in _UNITS else pair[0], text
    )


def _read_unit(text: str) -> Unit | None:
    """Return the unit that a text spells, or None."""
    powers: dict[str, int] = {}
    size = Fraction(1)
    text = _spelled_as_one(text)
    for match in _FACTOR.finditer(text):
        name = match["atom"]
        for prefix in ("\u5e73\u65b9", "\u7acb\u65b9"):
            name = name.removeprefix(prefix) if name not in _UNITS else name
        word = (match["word"] or match["atom"][: len(match["atom"]) - len(name)]).casefold().rstrip(".")
        known = _UNITS.get(name) or (_UNITS.get(name.casefold()) if len(name) > 1 else None)
        if known is None:
            return None
        power = int(match["power"] or match["plain"] or 1) * _POWER_WORDS.get(word, 1)
        power = -power if (match["sep"] or "").casefold() in ("/", "per") else power
        dimension, factor = known
        size *= factor**power
        for base, times in _COMPOSED.get(dimension, ((dimension, 1),)):
            powers[base] = powers.get(base, 0) + times * power
    return Unit(tuple(sorted((base, power) for base, power in powers.items() if base and power)), size)
