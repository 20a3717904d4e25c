"""Settings of the model service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from core.folders import FolderPath
from core.settings import PictureSettings


class ModelSettings(PictureSettings):
    port: int = Field(default=8001, ge=0, le=65535, description="port of the model service")
    models_dir: FolderPath = Field(default=Path("models"), description="where weights are looked for first, and fetched into")
    model_profile: str = Field(default="auto", description="`clip`, `starter`, `auto`, or the name of a folder in `MODELS_DIR`")
    clip_model: str = Field(
        default="openai/clip-vit-base-patch32",
        description="text-and-image model of `clip`: a hub id or a folder, any CLIP-like checkpoint",
    )
    image_model: str = Field(
        default="microsoft/resnet-50", description="image-only model of `clip`: a hub id or a folder; `none` leaves it out"
    )
    segmenter: str = Field(
        default="yoloe-26s-seg-pf.pt",
        description="segmentation checkpoint: a file name or path, YOLOE prompt-free or any YOLO-seg; `none` leaves it out",
    )
    model_device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `mps`")
    model_runtime: Literal["auto", "openvino", "onnx", "torch"] = Field(
        default="auto", description="what computes; `auto`: torch on a GPU, else the fastest that is installed"
    )
    model_precision: Literal["auto", "int8", "bf16", "fp32"] = Field(
        default="auto", description="least exact numbers to compute in, where the vectors stay as good; `auto`: the fastest such"
    )
    model_compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="whether torch compiles models, where they are then faster; `auto`: on a CUDA GPU"
    )
    images_dir: FolderPath = Field(default=Path("images"), description="the watched folder")
    hub_timeout_s: float = Field(default=3.0, gt=0, description="how long to wait for the model hub before going on without it")
    model_threads: int = Field(
        default=0, ge=0, description="threads of the runtimes; 0: as many as there are cores for this process"
    )
    embed_batch: int = Field(default=16, ge=1, le=256, description="most pictures embedded in one forward pass")
    queue_limit: int = Field(default=64, ge=1, description="requests that may wait; further ones are refused with 503")
    request_timeout_s: float = Field(default=120.0, gt=0, description="longest time that a request may take, its wait included")
    pass_timeout_s: float = Field(
        default=90.0,
        gt=0,
        description="longest time of one pass through a model; one that takes longer hangs, and ends the service, which is then to be started"
        " anew; less than `REQUEST_TIMEOUT_S`",
    )
    drain_s: float = Field(
        default=2.0,
        ge=0,
        description="for so long after SIGTERM requests are still taken while `/health/ready` says 503, so that whoever balances goes"
        " elsewhere; a part of `SHUTDOWN_GRACE_S`",
    )
    max_segments: int = Field(default=20, ge=0, le=100, description="most segments kept of a picture")
    segment_min_score: float = Field(default=0.25, ge=0, le=1, description="least confidence of a segment")

    @field_validator("model_runtime", "model_precision", "model_compile", mode="before")
    @classmethod
    def _lower_choice(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
