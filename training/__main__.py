"""`python -m training`: train models on one's own pictures, and measure any that the model service serves."""

from __future__ import annotations

import sys

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, PydanticBaseSettingsSource, SettingsConfigDict

from core.errors import NoModel
from training.evaluation.options import EvaluateOptions
from training.options import DualEncoderOptions, FewShotOptions, MetricOptions
from training.pictures import UnusablePictures

Command = EvaluateOptions | DualEncoderOptions | MetricOptions | FewShotOptions


class Train(BaseModel):
    """Train a model and write it as a profile that the model service loads."""

    dual_encoder: CliSubCommand[DualEncoderOptions] = Field(alias="dual-encoder")
    metric: CliSubCommand[MetricOptions]
    fewshot: CliSubCommand[FewShotOptions]


class Commands(BaseSettings):
    """Train models on your own pictures, and measure any that the model service serves."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training", cli_kebab_case=True, cli_implicit_flags=True)
    train: CliSubCommand[Train]
    evaluate: CliSubCommand[EvaluateOptions]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line alone: a stray variable SEED is nobody's wish."""
        return (init_settings,)

    def chosen(self) -> Command | None:
        train = self.train
        return self.evaluate or (train and (train.dual_encoder or train.metric or train.fewshot)) or None


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 2 when the command line or the pictures do not serve."""
    try:
        commands = CliApp.run(Commands, cli_args=arguments)
    except ValidationError as error:
        return _refused(*(f"--{_flag(found['loc'])}: {found['msg']}" for found in error.errors()))
    chosen = commands.chosen()
    if chosen is None:
        return _refused("name a command: train dual-encoder, train metric, train fewshot or evaluate; each has a --help")
    try:
        _run(chosen)
    except (UnusablePictures, NoModel) as error:
        return _refused(str(error))
    except ModuleNotFoundError as error:
        return _refused(f"{error.name} is not installed: pip install '.[training]', or make build")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; a training goes on from its last epoch with --resume\n")
        return 130
    return 0


def _run(chosen: Command) -> None:
    """Each imports what it needs when it is wanted: torch takes seconds. Raises UnusablePictures, NoModel."""
    if isinstance(chosen, EvaluateOptions):
        from training.evaluation.run import evaluate  # noqa: PLC0415

        evaluate(chosen)
        return
    if isinstance(chosen, DualEncoderOptions):
        from training.dual_encoder import train_dual_encoder  # noqa: PLC0415

        trained = str(train_dual_encoder(chosen))
    elif isinstance(chosen, MetricOptions):
        from training.metric import train_metric  # noqa: PLC0415

        trained = str(train_metric(chosen))
    else:
        from training.fewshot import train_fewshot  # noqa: PLC0415

        trained = str(train_fewshot(chosen))
    sys.stdout.write(f"{trained}\n")
    sys.stdout.write(
        f"{chosen.models_dir / chosen.name} is ready: make run MODELS_DIR={chosen.models_dir} MODEL_PROFILE={chosen.name}\n"
    )


def _refused(*lines: str) -> int:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return 2


def _flag(place: tuple[int | str, ...]) -> str:
    return str(place[-1]).replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
