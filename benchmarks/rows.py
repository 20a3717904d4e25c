"""A row of the table: what was measured, against what, and whether the goal was met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Row:
    """`value` in the unit of the goal, None where it could not be measured and `note` says why. `detail` holds what it was computed from."""

    name: str
    value: float | None
    goal: float
    better: Literal["higher", "lower"]
    unit: str = "x"
    detail: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def as_markdown(self) -> str:
        sign = "≥" if self.better == "higher" else "≤"
        outcome = {True: "met", False: "**missed**", None: ""}[self.met]
        seen = "not measured" if self.value is None else f"{_shown(self.value)} {self.unit}"
        numbers = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in self.detail.items())
        told = ". ".join(part for part in (numbers, self.note) if part)
        return f"| {self.name} | {seen} | {sign} {_shown(self.goal)} {self.unit} | {outcome} | {told} |"


HEAD = ["| what | seen | goal | | seen beside it |", "| --- | --- | --- | --- | --- |"]


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """In milliseconds."""
    return float(np.percentile(np.asarray(seconds), percent)) * 1000


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
