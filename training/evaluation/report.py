"""The report: numbers as `report.json`, plots as PNG, and all of it as one page that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.decode import DecodeLimits, thumbnail
from training.evaluation import plots
from training.evaluation.evaluation import Evaluation, plain
from training.evaluation.intervals import Estimate
from training.evaluation.plots import Plot
from training.evaluation.scores import Retrieval

PAGE = "report.html"
NUMBERS = "report.json"
FORMAT = 1
THUMBNAIL_SIDE = 176


def write(evaluation: Evaluation, folder: Path) -> Path:
    """Writes into the folder, which need not exist, and returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots.of(evaluation)
    for plot in drawn:
        (folder / f"{plot.name}.png").write_bytes(plot.light)
    numbers = {"format": FORMAT, **_fields(evaluation)}
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(evaluation, drawn), encoding="utf-8")
    return folder / PAGE


def page(evaluation: Evaluation, drawn: tuple[Plot, ...]) -> str:
    """The HTML, with every picture inside it."""
    return (
        _environment()
        .get_template(PAGE)
        .render(found=evaluation, plots=drawn, retrievals=_retrievals(evaluation), headlines=_headlines(evaluation))
    )


def _fields(evaluation: Evaluation) -> dict[str, object]:
    numbers = plain(evaluation)
    if not isinstance(numbers, dict):
        raise TypeError("an evaluation is an object")
    return numbers


def _environment() -> Environment:
    """`thumbnail` embeds a picture once read; `png` a plot."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = lru_cache(maxsize=None)(_thumbnail)
    environment.filters["png"] = _png
    environment.filters["interval"] = _interval
    return environment


def _thumbnail(path: Path) -> str:
    small = thumbnail(path.read_bytes(), DecodeLimits(), THUMBNAIL_SIDE)
    return f"data:image/webp;base64,{base64.b64encode(small).decode()}"


def _png(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _interval(estimate: Estimate) -> Markup:
    return Markup("{} <small>{}–{}</small>").format(f"{estimate.mean:.1f}", f"{estimate.low:.1f}", f"{estimate.high:.1f}")


def _retrievals(evaluation: Evaluation) -> list[tuple[str, Retrieval]]:
    rows = list[tuple[str, Retrieval]]()
    if found := evaluation.captioned:
        rows += [("Text to image", found.text_to_image), ("Image to text", found.image_to_text)]
    return rows + [
        (f"Image to image, {tower.card.model_name}", tower.image_to_image) for tower in evaluation.towers if tower.image_to_image
    ]


def _headlines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The few numbers that tell most: what is asked, and the per cent."""
    shown = list[tuple[str, str]]()
    if found := evaluation.captioned:
        shown.append(("of captions find their picture among the first ten", str(found.text_to_image.recall_at[10])))
    if labelled := evaluation.labelled:
        shown.append(("of pictures are nearest to their label's name", str(labelled.zero_shot[0].scores.top_1)))
    first = evaluation.towers[0]
    if first.image_to_image:
        shown.append(("of pictures have one of their own label nearest", str(first.image_to_image.recall_at[1])))
    if first.few_shot:
        options = evaluation.options
        shown.append(
            (
                f"of pictures are told right among {options.ways} labels with {options.shots} known pictures each",
                str(first.few_shot.accuracy),
            )
        )
    return shown
