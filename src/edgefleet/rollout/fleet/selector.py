"""Kubernetes label selectors: ``site=lyon,tier in (gold,silver),!canary``.

Grammar and meaning are those of kubernetes.io "Labels and selectors": requirements are joined by
commas, and a device must meet all of them. A device without the key meets ``!=`` and ``notin``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.limits import LABEL_VALUE_CHARS
from edgefleet.rollout.limits import SELECTOR_CHARS, SELECTOR_REQUIREMENTS

_TOKEN: Final = re.compile(r"\s*(?:(==|!=|[=!(),])|([A-Za-z0-9_./-]+))")
_KEY: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?")


class Operator(StrEnum):
    """``a=b`` is IN with one value, and ``a!=b`` is NOT_IN with one value."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "not exists"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.NOT_EXISTS:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """The requirements that a device must meet. Without requirements it matches every device."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(requirement.key for requirement in self.requirements)


def parse(text: str, *, field: str = "selector") -> Selector:
    """Parse a selector. Raises OperatorError ``selector_invalid``, which names the character."""
    if len(text) > SELECTOR_CHARS:
        raise OperatorError(
            "selector_invalid",
            f"The selector has {len(text)} characters; at most {SELECTOR_CHARS} are allowed.",
            field=field,
        )
    return _Reader(text, field).selector()


@dataclass(frozen=True, slots=True)
class _Token:
    text: str  # empty at the end
    at: int
    is_word: bool


class _Reader:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        self._tokens = tuple(self._split(text))
        self._next = 0

    def selector(self) -> Selector:
        if not self._peek().text:
            return Selector()
        requirements = [self._requirement()]
        while self._peek().text:
            self._expect(",")
            requirements.append(self._requirement())
        if len(requirements) > SELECTOR_REQUIREMENTS:
            raise OperatorError(
                "selector_invalid",
                f"The selector has {len(requirements)} conditions; "
                f"at most {SELECTOR_REQUIREMENTS} are allowed.",
                field=self._field,
            )
        return Selector(tuple(requirements))

    def _requirement(self) -> Requirement:
        if self._peek().text == "!":
            self._read()
            return Requirement(self._key(), Operator.NOT_EXISTS)
        key = self._key()
        token = self._peek()
        if token.text in ("=", "==", "!="):
            self._read()
            operator = Operator.NOT_IN if token.text == "!=" else Operator.IN
            return Requirement(key, operator, frozenset({self._single_value()}))
        if token.text in ("in", "notin"):
            self._read()
            return Requirement(key, Operator(token.text), self._values())
        if token.text in ("", ","):
            return Requirement(key, Operator.EXISTS)
        raise self._refused(token, "an operator (=, !=, in, notin) or a comma")

    def _values(self) -> frozenset[str]:
        self._expect("(")
        values = {self._value()}
        while self._peek().text != ")":
            self._expect(",")
            values.add(self._value())
        self._read()
        return frozenset(values)

    def _key(self) -> str:
        token = self._read()
        if not token.is_word or not _KEY.fullmatch(token.text):
            raise self._refused(token, "a label key")
        return token.text

    def _single_value(self) -> str:
        """A value, which may be empty: ``a=`` matches the label ``a`` with an empty value."""
        return "" if self._peek().text in ("", ",") else self._value()

    def _value(self) -> str:
        token = self._read()
        good = token.is_word and len(token.text) <= LABEL_VALUE_CHARS
        if not good or not _VALUE.fullmatch(token.text):
            raise self._refused(token, "a label value")
        return token.text

    def _expect(self, text: str) -> None:
        token = self._read()
        if token.text != text:
            raise self._refused(token, repr(text))

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _read(self) -> _Token:
        token = self._tokens[self._next]
        if token.text:
            self._next += 1
        return token

    def _refused(self, token: _Token, wanted: str) -> OperatorError:
        found = repr(token.text) if token.text else "the end"
        return OperatorError(
            "selector_invalid",
            f"At character {token.at + 1}: expected {wanted}, found {found}.",
            field=self._field,
        )

    def _split(self, text: str) -> Iterator[_Token]:
        at = 0
        end = len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise self._refused(_Token(text[at], at, is_word=False), "a key, value or operator")
            sign, word = found.group(1), found.group(2)
            yield _Token(sign or word, found.start(1 if sign else 2), is_word=word is not None)
            at = found.end()
        yield _Token("", end, is_word=False)
