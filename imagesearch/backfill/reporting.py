"""What came of a backfill: for people as Markdown, for programs as JSON, beside its journal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from imagesearch.backfill.journal import Journal, Parked

_FIRST_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Report:
    """`ended` says why it stopped; None where everything came to its end."""

    source: str
    ended: str | None
    rows: int
    uploaded: int
    known: int
    indexed: int
    parked: int
    left: dict[str, int]
    reasons: dict[str, int]
    duration_s: float
    rows_per_s: float
    first_failures: tuple[Parked, ...]
    go_on: str
    what: str = "Backfill"

    @classmethod
    def of(cls, journal: Journal, *, source: str, ended: str | None, go_on: str, what: str = "Backfill") -> Report:
        counts, spent_s = journal.counts(), journal.spent_s
        indexed, parked = counts.get("indexed", 0), counts.get("parked", 0)
        return cls(
            source=source,
            ended=ended,
            rows=counts.get("rows", 0),
            uploaded=counts.get("uploaded", 0),
            known=counts.get("known", 0),
            indexed=indexed,
            parked=parked,
            left=journal.left(),
            reasons=journal.reasons(),
            duration_s=round(spent_s, 1),
            rows_per_s=round((indexed + parked) / spent_s, 2) if spent_s > 0 else 0.0,
            first_failures=tuple(journal.parked(_FIRST_FAILURES)),
            go_on=go_on,
            what=what,
        )

    @property
    def next_step(self) -> str:
        if self.ended is not None or self.left:
            return f"Go on where it was left: `{self.go_on}`"
        return f"Try what was given up once more: `{self.go_on} --retry`" if self.parked else "Nothing is left to do."

    def write(self, folder: Path) -> None:
        """As report.json and report.md. Raises OSError."""
        told = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        for name, text in (("report.json", told), ("report.md", self.markdown())):
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")  # which JSON reads as what it was

    def markdown(self) -> str:
        lines = [
            f"# {self.what} of {self.source}",
            "",
            self.ended or ("Everything was brought." if not self.left else "More is to come."),
            "",
        ]
        lines += ["| rows | |", "| --- | ---: |", f"| read | {self.rows:,} |", f"| sent | {self.uploaded:,} |"]
        lines += [
            f"| known to the service before | {self.known:,} |",
            f"| indexed | {self.indexed:,} |",
            f"| given up | {self.parked:,} |",
        ]
        lines += [f"| {_STATES[state]} | {count:,} |" for state, count in self.left.items()]
        lines += ["", f"{self.duration_s:,.0f} s, {self.rows_per_s:,.1f} rows a second.", ""]
        if self.reasons:
            lines += ["| given up because | rows |", "| --- | ---: |"]
            lines += [f"| `{reason}` | {count:,} |" for reason, count in self.reasons.items()]
            lines += ["", "The first of them:", ""]
            lines += [
                f"- row {one.number:,}, `{_inline(one.place)}`: `{one.reason}`, {_inline(one.detail)}"
                for one in self.first_failures
            ]
            lines.append("")
        return "\n".join([*lines, self.next_step, ""])


_STATES = {"waiting": "not sent yet", "sent": "sent, not indexed yet", "lying": "in the folder, not indexed yet"}


def _inline(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ").replace("|", "\\|")
