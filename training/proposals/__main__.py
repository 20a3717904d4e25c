"""`python -m training.proposals --photos coco-80-masks.tar [--yolo yolov8n-seg.pt] [--out folder]`: every number, anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none
from tqdm import tqdm

from model_service import onnx_encoder
from model_service.registry import STARTER
from training.pictures import UnusablePictures
from training.proposals import baselines, references, report
from training.proposals.cells import StarterMap, colour
from training.proposals.coco import Photo, photos
from training.proposals.measures import measure
from training.proposals.regions import Proposer, Region
from training.proposals.search import by_captions, by_names
from training.proposals.trees import TreeProposer


class Options(BaseSettings):
    """Measure regions without trained weights against COCO's masks, and what search gains by them."""

    model_config = SettingsConfigDict(cli_kebab_case=True, env_prefix="PROPOSALS_", frozen=True)
    photos: Path = Field(description="tar of COCO photos with annotations/instances_*.json and captions_*.json")
    yolo: Path | None = Field(default=None, description="a YOLO segmentation checkpoint as the upper reference")
    out: Path = Field(default=Path("runs/proposals"), description="where proposals.json and proposals.md go")
    seed: int = Field(default=0, description="of the intervals' draws")

    def cli_cmd(self) -> None:
        """On one thread, so that times can be compared; a setting of the process."""
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        with threadpool_limits(1):
            run(self)


def run(options: Options) -> report.Report:
    """Raises UnusablePictures."""
    found = photos(options.photos)
    encoder = onnx_encoder.load(STARTER, model_name=None, threads=1)
    measured = [
        measure(name, regions_of, tqdm(found, desc=name, unit="photo"), encoder)
        for name, regions_of in _measured(options).items()
    ]
    summary = report.summed_up(measured, by_names(found), by_captions(found), encoder, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "proposals.json").write_text(json.dumps(summary.as_json(), indent=1), encoding="utf-8")
    (options.out / "proposals.md").write_text(report.markdown(summary), encoding="utf-8")
    return summary


def _measured(options: Options) -> dict[str, Callable[[Photo], list[Region]]]:
    proposers: dict[str, Proposer] = {
        "whole picture": baselines.whole_image,
        "centre ellipse": baselines.centre_ellipse,
        report.GRID: baselines.grid,
        "colour tree": TreeProposer((colour,)),
        "colour and starter tree": TreeProposer((StarterMap(STARTER, threads=1), colour)),
    }
    measured = {name: _of_pixels(proposer) for name, proposer in proposers.items()}
    if options.yolo is not None:
        measured[options.yolo.stem] = references.yolo(options.yolo)
    return {**measured, "outlines by people": references.outlines}


def _of_pixels(proposer: Proposer) -> Callable[[Photo], list[Region]]:
    return lambda photo: proposer(photo.pixels)


if __name__ == "__main__":
    try:
        CliApp.run(Options)
    except UnusablePictures as error:
        sys.exit(str(error))
