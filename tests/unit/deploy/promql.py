"""As much of PromQL as tells which metrics and labels an expression asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}
_LABELS = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^()]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*+)\s*+(\{[^{}]*\})?+(?!\s*\()")
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')
_OPENS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Matcher:
    label: str
    operator: str
    value: str

    def admits(self, value: str) -> bool:
        is_met = re.fullmatch(self.value, value) is not None if "~" in self.operator else value == self.value
        return is_met != self.operator.startswith("!")


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[Matcher, ...]


def selectors(expression: str) -> list[Selector]:
    """The metrics that are asked for, in order. Raises ValueError where brackets do not pair, or a matcher is none."""
    _check_brackets(expression)
    bare = re.sub(r"\[[^\]]*\]", " ", _LABELS.sub(" ", expression))
    found = []
    for metric, braces in _SELECTOR.findall(re.sub(r"(?<![\w:])\d[\w.]*", " ", bare)):
        if metric not in _WORDS:
            found.append(Selector(metric, _matchers(braces.strip("{}"))))
    return found


def labels(expression: str) -> set[str]:
    """The labels that it groups or joins by."""
    return {label.strip() for named in _LABELS.findall(expression) for label in named.split(",") if label.strip()}


def _matchers(text: str) -> tuple[Matcher, ...]:
    if _MATCHER.sub("", text).strip():
        raise ValueError(f"{text!r} holds something that is no matcher")
    return tuple(Matcher(*parts) for parts in _MATCHER.findall(text))


def _check_brackets(expression: str) -> None:
    expected: list[str] = []
    for character in re.sub(r'"[^"]*"', "", expression):
        if character in _OPENS:
            expected.append(_OPENS[character])
        elif character in _OPENS.values() and (not expected or expected.pop() != character):
            raise ValueError(f"{character} closes nothing in {expression!r}")
    if expected:
        raise ValueError(f"{expected[-1]} is missing in {expression!r}")
