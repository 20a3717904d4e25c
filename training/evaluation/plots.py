"""The report's plots as PNG, each in light and in dark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from training.evaluation.evaluation import Evaluation, LabelScores, NameScores
from training.evaluation.options import EvaluateOptions
from training.evaluation.scores import FewShot, Retrieval

Size = tuple[float, float]

_DEEPEST = 100
_RANK_EDGES = (1, 2, 6, 11, 51, 101, 501)
_MOST_BINS = 25
_MOST_NAMED = 40
_MOST_NUMBERED = 15


@dataclass(frozen=True, slots=True)
class Plot:
    """`name` is the file's stem; `alt` says in words what is to be seen."""

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class _Theme:
    """The colours of the service's page."""

    ground: str
    ink: str
    line: str
    series: tuple[str, ...]


_LIGHT = _Theme("#ffffff", "#1d2320", "#d9dbd3", ("#23695b", "#c2691a", "#4a5fb5", "#a03a6b"))
_DARK = _Theme("#1d2320", "#e9ede9", "#353e39", ("#6cc3ae", "#e2a05b", "#93a6f0", "#e08bb4"))

_Draw = Callable[[Axes, _Theme], None]


def of(evaluation: Evaluation) -> tuple[Plot, ...]:
    """Those whose numbers were measured."""
    plots = list[Plot]()
    if found := evaluation.captioned:
        directions = {"text to image": found.text_to_image, "image to text": found.image_to_text}
        plots += [_recall("recall_captions", "Words and pictures: found among the first k", directions), _ranks(directions)]
    by_tower = {tower.card.model_name: tower.image_to_image for tower in evaluation.towers if tower.image_to_image}
    if by_tower:
        plots.append(_recall("recall_labels", "Pictures of the same label: found among the first k", by_tower))
    few = {tower.card.model_name: tower.few_shot for tower in evaluation.towers if tower.few_shot}
    if few:
        plots.append(_few_shot(few, evaluation.options))
    if evaluation.labelled:
        plots.append(_confusion(evaluation.labelled, evaluation.labelled.zero_shot[0]))
    return tuple(plots)


def _recall(name: str, title: str, found: dict[str, Retrieval]) -> Plot:
    def draw(axes: Axes, theme: _Theme) -> None:
        for (label, scores), colour in zip(found.items(), _colours(theme, len(found)), strict=True):
            depths = np.arange(1, min(_DEEPEST, scores.candidates) + 1)
            shares = (scores.first_ranks[:, None] <= depths).mean(0) * 100
            axes.plot(depths, shares, color=colour, linewidth=2, label=_literal(label))
        axes.set_xscale("log")
        ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= max(scores.candidates for scores in found.values())]
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="k", ylabel="queries with a right answer, %", ylim=(0, 102))
        axes.legend(frameon=False, labelcolor=theme.ink, loc="lower right")

    shares = [f"{label}: {_points(scores)}" for label, scores in found.items()]
    return _plot(name, title, f"Curves of the share of queries with a right answer among the first k. {'; '.join(shares)}.", draw)


def _ranks(found: dict[str, Retrieval]) -> Plot:
    most = max(scores.candidates for scores in found.values())
    edges = [edge for edge in _RANK_EDGES if edge <= most] + [most + 1]
    names = [str(low) if high - low == 1 else f"{low}–{high - 1:,}" for low, high in pairwise(edges)]
    shares = {label: np.histogram(scores.first_ranks, edges)[0] / scores.queries * 100 for label, scores in found.items()}

    def draw(axes: Axes, theme: _Theme) -> None:
        width = 0.8 / len(shares)
        for n, ((label, heights), colour) in enumerate(zip(shares.items(), _colours(theme, len(shares)), strict=True)):
            axes.bar(np.arange(len(names)) + (n + 0.5) * width - 0.4, heights, width, color=colour, label=_literal(label))
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel="rank of the first right answer", ylabel="queries, %")
        axes.legend(frameon=False, labelcolor=theme.ink)

    medians = [f"{label}: median rank {scores.median_rank:g}" for label, scores in found.items()]
    alt = f"Bars of how many queries find their first right answer at which rank. {'; '.join(medians)}."
    return _plot("ranks", "Where the right answer comes", alt, draw)


def _few_shot(found: dict[str, FewShot], options: EvaluateOptions) -> Plot:
    bins = _accuracy_bins(min(scores.accuracies.min() for scores in found.values()), options.ways * options.queries)

    def draw(axes: Axes, theme: _Theme) -> None:
        for (label, scores), colour in zip(found.items(), _colours(theme, len(found)), strict=True):
            axes.hist(scores.accuracies * 100, bins=bins, color=colour, alpha=0.65, label=_literal(label))
            axes.axvline(scores.accuracy.mean, color=colour, linewidth=2)
        axes.set(xlabel="accuracy of an episode, %", ylabel="episodes")
        axes.legend(frameon=False, labelcolor=theme.ink)

    means = [f"{name}: {few.accuracy} % ({few.accuracy.low:.1f} to {few.accuracy.high:.1f})" for name, few in found.items()]
    alt = f"Histogram of the episodes' accuracies, the mean as a line. {'; '.join(means)}."
    return _plot("few_shot", f"Few-shot: {options.ways} labels, {options.shots} known pictures of each", alt, draw)


def _accuracy_bins(lowest: float, asked: int) -> list[float]:
    """Edges between the accuracies that an episode of so many queries can have, per cent: none is empty for arithmetic's sake."""
    first = int(lowest * asked + 0.5)
    width = -(-(asked + 1 - first) // _MOST_BINS)
    return [(count - 0.5) / asked * 100 for count in range(first, asked + width + 1, width)]


def _confusion(labelled: LabelScores, names: NameScores) -> Plot:
    confusion = names.scores.confusion
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)

    def draw(axes: Axes, theme: _Theme) -> None:
        shades = LinearSegmentedColormap.from_list("shades", [theme.ground, theme.series[0]])
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
        axes.set(xlabel="nearest name", ylabel="label")
        axes.grid(visible=False)
        if len(labelled.labels) > _MOST_NAMED:
            axes.set_xticks([])
            axes.set_yticks([])
            return
        axes.set_xticks(
            range(len(labelled.words)), map(_literal, labelled.words), rotation=60, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(labelled.labels)), map(_literal, labelled.labels))
        if len(labelled.labels) <= _MOST_NUMBERED:
            for (row, column), count in np.ndenumerate(confusion):
                if count:
                    colour = theme.ground if shares[row, column] > 0.5 else theme.ink
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)

    side = min(7.0, 3.2 + 0.28 * len(labelled.labels))
    alt = f"Matrix of labels against nearest names; {names.scores.top_1} % of the pictures lie on its diagonal."
    return _plot("confusion", f"Zero-shot: taken for which name, {names.template!r}", alt, draw, size=(side, side))


def _plot(name: str, title: str, alt: str, draw: _Draw, size: Size = (6.4, 3.8)) -> Plot:
    return Plot(name, title, alt, _drawn(draw, _LIGHT, size), _drawn(draw, _DARK, size))


def _drawn(draw: _Draw, theme: _Theme, size: Size) -> bytes:
    figure = Figure(figsize=size, layout="constrained", facecolor=theme.ground)
    axes = figure.add_subplot(facecolor=theme.ground)
    axes.grid(color=theme.line, linewidth=0.7)
    axes.set_axisbelow(True)
    draw(axes, theme)
    for side in axes.spines.values():
        side.set_color(theme.line)
    axes.tick_params(colors=theme.ink)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # boxes then; the tables have the names
        figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _literal(name: str) -> str:
    """Without this matplotlib would set what lies between two dollars as a formula."""
    return name.replace("$", r"\$")


def _colours(theme: _Theme, count: int) -> list[str]:
    return [theme.series[n % len(theme.series)] for n in range(count)]


def _points(scores: Retrieval) -> str:
    return ", ".join(f"{share} % at {k}" for k, share in scores.recall_at.items())
