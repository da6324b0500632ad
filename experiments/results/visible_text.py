"""Texts in which every character can be seen, for pages and tables."""

import re

# No character of XML, a lone half of a UTF-16 pair, or one that turns the direction of what follows it.
_UNSEEN = re.compile(
    '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff\ufffe\uffff]'
)


def shown(text: object) -> str:
    """A text in which every character can be seen: control characters and undecodable bytes as escapes.

    Python keeps the bytes of a path that are no UTF-8 as lone surrogates (PEP 383); they are shown as ``\\xff``.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if 0xDC80 <= code <= 0xDCFF:
            code -= 0xDC00
        return f'\\x{code:02x}' if code < 0x100 else f'\\u{code:04x}'

    return _UNSEEN.sub(escape, str(text))
