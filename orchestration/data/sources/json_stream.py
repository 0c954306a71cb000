"""JSON read value by value from a file: memory holds one entry and one read, however long the file is."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

READ_BYTES = 65_536
MAX_VALUE_CHARS = 2**28
"""Length at which an entry is refused: no row is that long, and a quote that is missing makes one text of the rest."""
NEAR_END = 16
"""Characters before the end of what is read in which an error may come from the cut: `-Infinity`, `\\ud83d\\ude00`."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class JsonStream:
    """A position in a JSON text. Methods raise ValueError where the text is no JSON.

    NaN, infinity and whole numbers of any length are read as Python's json does.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self.num_bytes = 0
        """Bytes read so far."""

    def peek(self) -> str:
        """Return the next sign that is no white space, without passing it; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None  # it matches nothing too
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(READ_BYTES):
                return ""

    def value(self) -> object:
        """Read one value whole."""
        self.peek()
        size = READ_BYTES
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                fault = self._fault(error)
                if not self._may_be_cut(error) or not self._more(size):
                    raise ValueError(fault) from error
                size *= 2  # so that a long value is not parsed once for every read
                continue
            except RecursionError as error:
                raise ValueError("too many brackets open at once") from error
            # The digits of a number may go on in the next read.
            if isinstance(value, (int, float)) and end + NEAR_END > len(self._text) and self._more(size):
                continue
            self._at = end
            return value

    def skip(self) -> None:
        """Pass one value; of an array or object, entry by entry."""
        sign = self.peek()
        if sign == "[":
            for _ in self.entries():
                pass
        elif sign == "{":
            for _ in self.names():
                self.value()
        else:
            self.value()

    def entries(self) -> Iterator[object]:
        """Read the entries of an array one by one."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """Read the names of an object's members one by one; the caller reads or skips the value behind each."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise ValueError(f"a name in quotes should stand where {self._found()} stands")
            name = self.value()
            self._take(":")
            yield str(name)
            if self._take(",}") == "}":
                return

    def finish(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise ValueError(f"trailing garbage: {self._text[self._at : self._at + 20]!r} follows the end")

    def _take(self, signs: str) -> str:
        sign = self.peek()
        if not sign or sign not in signs:
            raise ValueError(f"{' or '.join(map(repr, signs))} should stand where {self._found()} stands")
        self._at += 1
        return sign

    def _found(self) -> str:
        return repr(self.peek()) if self.peek() else "the end of the file"

    def _fault(self, error: json.JSONDecodeError) -> str:
        if error.msg.startswith("Unterminated string") or not self._text[error.pos :].strip():
            return "the file ends within a value"
        return f"{error.msg}, at {self._text[error.pos : error.pos + 20]!r}"

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        if len(self._text) - self._at > MAX_VALUE_CHARS:
            return False
        return error.msg.startswith("Unterminated string") or error.pos + NEAR_END > len(self._text)

    def _more(self, size: int) -> bool:
        """Read on and forget what is passed; return whether there was more."""
        data = self._file.read(size)
        self.num_bytes += len(data)
        self._text = self._text[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return bool(data)
