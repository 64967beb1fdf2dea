"""Error messages of typed parameters that say what to do about an unknown key."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Model = TypeVar("Model", bound=BaseModel)


class Explained(BaseModel):
    """A model whose errors name the known keys beside the unknown one."""

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Build the model from plain values.

        Raises:
            ValidationError: a key or a value is not one it knows.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _explain(error, cls) from None


def validate_nested(model: type[Model], values: Any, what: str) -> Model:
    """Build a model within the check of another one, or of a function's argument.

    Args:
        model: to build.
        values: plain values.
        what: is named before the error.

    Raises:
        ValueError: a key or a value is not one it knows. A validator may raise it, unlike the
            ``ValidationError`` of :class:`Explained`, whose kinds of errors are its own.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{what}: {error}") from error


def suggestion(key: str, known: list[str]) -> str:
    """What to write instead of an unknown key.

    Example:
        >>> suggestion("step", ["batch_size", "steps"])
        "known keys here are batch_size, steps; did you mean 'steps'?"
    """
    close = get_close_matches(key, known, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "correct or remove it"
    return f"known keys here are {', '.join(known) or 'none'}; {advice}"


def _explain(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """The same errors, with the known keys where one is unknown."""
    details = []
    for item in error.errors():
        kind: str | PydanticCustomError = item["type"]
        if kind == "extra_forbidden":
            advice = suggestion(str(item["loc"][-1]), _known_keys(model, item["loc"][:-1]))
            kind = PydanticCustomError("unknown_key", "Unknown key: {advice}", {"advice": advice})
        details.append(
            InitErrorDetails(
                type=kind, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {})
            )
        )
    return ValidationError.from_exception_data(error.title, details)


def _known_keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """Keys of the model at ``path`` inside ``model``; none if it cannot be found."""
    for key in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(key))
            model = _inner_type(field.annotation) if field else None
        elif get_origin(model) in (dict, list, tuple):
            model = _inner_type(get_args(model)[-1])
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    return sorted(model.model_fields) if is_model else []


def _inner_type(annotation: Any) -> Any:
    """``X`` of an optional ``X | None``."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    is_optional = type(None) in get_args(annotation) and len(options) == 1
    return options[0] if is_optional else annotation
