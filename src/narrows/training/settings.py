"""Everything that belongs to training and not to the model."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narrows.spec import misspelt

__all__ = ["Training"]


class Training(BaseModel):
    """How to train; every field has a default that suits a first run.

    Raises: ValueError, one sentence a fault, for a value out of range or a name that is not there.

    Example:
        >>> Training(epochs=5).batch
        128
        >>> Training(epoch=5)
        Traceback (most recent call last):
        ValueError: Training: there is no setting 'epoch'; did you mean 'epochs'?
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    epochs: int | None = Field(None, ge=1, description="passes over the training rows at most; none: 30,000 steps")
    minutes: float | None = Field(None, gt=0, description="wall time at most")
    batch: int = Field(128, ge=1, description="rows a step, over all processes")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    decay: Literal["none", "cosine"] = Field("none", description="of the learning rate, over the steps of the cap")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    skip: float = Field(
        0.0,
        ge=0,
        description="norm of the gradient beyond which, or where it is no number, a step is left out; 0: none",
    )
    average: float = Field(
        0.0, ge=0, lt=1, description="share kept of the weights' running average, which is judged and kept; 0: none"
    )
    trim: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each batch, its rows of the greatest loss, that teaches nothing: where training rows "
        "hold anomalies (Rousseeuw 1984, least trimmed squares)",
    )
    patience: int = Field(10, ge=1, description="checks without a gain beyond one standard error before stopping")
    check: int | None = Field(None, ge=1, description="steps between checks; none: an epoch, at least 100 steps")
    seed: int = Field(0, ge=0, description="of data order and noise; a recipe has its own for the weights")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    compile: bool = Field(False, description="through torch.compile; weights then differ from eager ones")
    on_collapse: Literal["warn", "stop"] = Field("warn", description="where no unit of the code carries anything")
    save_every: float = Field(30.0, ge=0, description="seconds between checkpoints")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(f"Training: {_sentence(error)}") from None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as scikit-learn asks for them."""
        return self.model_dump()

    def __sklearn_clone__(self) -> Self:
        return self.model_copy()

    def set_params(self, **values: Any) -> Self:
        """Changes settings by name, as scikit-learn does."""
        checked = type(self)(**{**self.model_dump(), **values})
        for name in values:
            setattr(self, name, getattr(checked, name))
        return self


def _sentence(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "?"
        if fault["type"] == "extra_forbidden":
            faults.append(misspelt("setting", name, Training.model_fields))
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            faults.append(f"{name} is {Training.model_fields[name].description}: {message}; got {fault['input']!r}")
    return "; ".join(faults)
