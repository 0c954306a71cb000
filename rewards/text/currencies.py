"""Currencies: their signs, codes and names. No two are equal; a sign that several share stands for any of them."""

import re

CURRENCIES = {
    "dollar": "$ dollar", "us dollar": "us$ usd \u7f8e\u5143 \u7f8e\u91d1", "canadian dollar": "c$ ca$ cad",
    "australian dollar": "a$ au$ aud", "new zealand dollar": "nz$ nzd", "hong kong dollar": "hk$ hkd \u6e2f\u5143",
    "singapore dollar": "s$ sg$ sgd", "taiwan dollar": "nt$ twd", "euro": "\u20ac eur euro \u6b27\u5143",
    "pound sterling": "\u00a3 gbp sterling quid \u82f1\u9551", "yen or yuan": "\u00a5",
    "yen": "jpy yen jp\u00a5 \u5186 \u65e5\u5143",
    "yuan": "\u5143 yuan rmb cny renminbi \u4eba\u6c11\u5e01 \u5757\u94b1 \u5757 cn\u00a5",
    "rupee": "\u20b9 rs rs. rupee", "indian rupee": "inr", "won": "\u20a9 krw won \u97e9\u5143",
    "ruble": "\u20bd rub ruble rouble", "lira": "\u20ba lira", "baht": "\u0e3f thb baht", "dong": "\u20ab vnd dong",
    "shekel": "\u20aa ils shekel", "franc": "chf franc", "real": "r$ brl reais", "mexican peso": "mx$ mxn",
    "peso": "\u20b1 php peso", "rand": "zar rand", "krona": "kr krona kronor krone kroner", "swedish krona": "sek",
    "norwegian krone": "nok", "danish krone": "dkk", "zloty": "pln zloty", "koruna": "czk koruna",
    "forint": "huf forint", "rupiah": "idr rupiah", "ringgit": "myr ringgit", "riyal": "sar riyal",
    "dirham": "aed dirham", "naira": "\u20a6 ngn naira", "taka": "\u09f3 bdt taka", "hryvnia": "\u20b4 uah hryvnia",
    "bitcoin": "\u20bf btc bitcoin",
}  # fmt: skip
SHARED = {
    "dollar": {name for name in CURRENCIES if name.endswith(" dollar")},
    "yen or yuan": {"yen", "yuan"},
    "rupee": {"indian rupee"},
    "peso": {"mexican peso"},
    "krona": {"swedish krona", "norwegian krone", "danish krone"},
}
"""What a sign or name stands for that several currencies share."""
_MARKS = [mark for marks in CURRENCIES.values() for mark in marks.split()] + ["\u00a2"]
_CODES = {
    mark
    for mark in _MARKS
    if not (mark.isascii() and mark.isalpha()) or (len(mark) < 4 and mark not in ("yen", "won", "kr"))
}
"""All but names, which stand behind a number only."""
SIGN = f"[{''.join(mark for mark in _MARKS if len(mark) == 1 and not mark.isalpha())}]"
MARK = rf"(?:{'|'.join(re.escape(mark) for mark in sorted(_CODES, key=len, reverse=True))})"
"""A pattern of what may stand in front of a number, case-folded."""


def are_one_currency(left: str, right: str) -> bool:
    """Return whether two names of `CURRENCIES` may mean the same money.

    Example:
        >>> are_one_currency("dollar", "canadian dollar"), are_one_currency("us dollar", "canadian dollar")
        (True, False)
    """
    return left == right or right in SHARED.get(left, ()) or left in SHARED.get(right, ())
