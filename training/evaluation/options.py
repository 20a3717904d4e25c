"""Options of `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from training.pictures import Split

SLOT = "{}"


def _bare_slot(template: object) -> object:
    """A command line takes a lone `{}` for an empty JSON object."""
    return SLOT if template == {} else template


Template = Annotated[str, BeforeValidator(_bare_slot)]


class EvaluateOptions(BaseModel):
    """Measure a model on labelled pictures, on captioned pictures, or on both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = Field(
        default="starter", description="What `MODEL_PROFILE` names: `starter`, `clip`, or a folder of the models."
    )
    models_dir: Path = Field(default=Path("models"), description="Where the models lie; nothing is downloaded.")
    labelled: Path | None = Field(
        default=None, description="A folder of pictures per label; or `query/` and `gallery/` with such folders each."
    )
    captions: Path | None = Field(
        default=None, description="A captions file (.json, .jsonl, .csv, .tsv, .txt); wants `pictures`."
    )
    pictures: Path | None = Field(default=None, description="The folder that the captions file names pictures in.")
    split: Split | None = Field(default=None, description="Which split to measure, where folder or captions file have splits.")
    templates: tuple[Template, ...] = Field(
        default=("a photo of a {}", "{}"),
        min_length=1,
        description="What is asked for a label, `{}` being its name; repeat it for more, and give those with a comma as a JSON list.",
    )
    names: Path | None = Field(
        default=None, description="A JSON object from folder name to the words to ask for; else the name, `_` as a space."
    )
    ways: int = Field(default=5, ge=2, description="Few-shot: labels in an episode.")
    shots: int = Field(default=5, ge=1, description="Few-shot: known pictures of each label.")
    queries: int = Field(default=10, ge=1, description="Few-shot: pictures of each label that are asked about.")
    episodes: int = Field(default=200, ge=2, description="Few-shot: episodes drawn.")
    limit: int | None = Field(default=None, ge=1, description="Measure at most this many pictures of each set, drawn by seed.")
    seed: int = Field(default=7, ge=0, description="Of every draw: the limit, episodes, intervals, examples.")
    threads: int = Field(default=0, ge=0, description="Threads of the runtimes; 0: as many as there are cores.")
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `mps`.")
    report: Path = Field(default=Path("report"), description="The folder that the report is written into.")

    @field_validator("templates")
    @classmethod
    def _has_slot(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if SLOT not in template:
                raise ValueError(f"the template {template!r} has no {SLOT} for the name")
        return templates

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if self.labelled is None and self.captions is None:
            raise ValueError("nothing to measure: give `labelled`, or `captions` with `pictures`, or all of them")
        if (self.captions is None) != (self.pictures is None):
            raise ValueError("`captions` and `pictures` come together: the file, and the folder that it names pictures in")
        return self
