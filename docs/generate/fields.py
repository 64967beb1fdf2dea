"""The fields of typed parameters: type, bounds, default and description of each."""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
import yaml
from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

from docs.generate.markdown import code, plain, summary
from safetydpo_kedro.attacks.registry import AttackConfig
from safetydpo_kedro.merging import parse_config
from safetydpo_kedro.merging.trials import Arm
from safetydpo_kedro.pipelines.ablations.parameters import (
    ArmsParameters,
    RecipeArm,
    SweepsParameters,
)
from safetydpo_kedro.pipelines.adversarial.parameters import AttacksParameters
from safetydpo_kedro.pipelines.merging.parameters import StrategyParameters

REQUIRED = "required"
# Mappings whose keys users choose: what one entry may hold, instead of all entries.
ENTRIES = {ArmsParameters: ("<arm>", Arm), SweepsParameters: ("<sweep>.<arm>", RecipeArm)}


@dataclass(frozen=True)
class FieldRow:
    """A field of a model, at its place among the parameters.

    Attributes:
        key: dotted, from the parameters' root.
        kind: type, for readers.
        bounds: such as "≥ 0", or nothing.
        default: of the model, as YAML, or "required".
        description: of the field, or the summary of the model that it holds; may be missing.
        model: that has the field.
    """

    key: str
    kind: str
    bounds: str
    default: str
    description: str
    model: type[BaseModel]


def rows(key: str, model: type[BaseModel], value: BaseModel | None = None) -> Iterator[FieldRow]:
    """All fields below a key, those of nested models among them.

    Args:
        key: dotted name of the parameter that is read as this model.
        model: its class.
        value: what the configuration states; it tells which models stand behind a section that
            holds anything, such as the settings of a merge strategy.
    """
    if model in ENTRIES:
        entry, model = ENTRIES[model]
        yield from rows(f"{key}.{entry}", model)
        return
    if issubclass(model, RootModel):
        for inner in settings(value):
            yield from rows(key, type(inner), inner)
        return
    for name, field in model.model_fields.items():
        yield from _field_rows(f"{key}.{name}", model, name, field, getattr(value, name, None))
    for inner in settings(value):
        yield from rows(key, type(inner), inner)
    for name, inner in chosen_attacks(value).items():
        yield from rows(f"{key}.attacks.{name}", type(inner), inner)


def _field_rows(
    key: str, model: type[BaseModel], name: str, field: FieldInfo, value: Any
) -> Iterator[FieldRow]:
    inner = nested_model(field.annotation)
    yield FieldRow(
        key=key,
        kind=type_name(field.annotation),
        bounds=", ".join(filter(None, map(_bound, field.metadata))),
        default="" if inner and not field.is_required() else _default(field),
        description=plain(description(model, name)) or (summary(inner) if inner else ""),
        model=model,
    )
    if inner:
        yield from rows(key, type(value) if isinstance(value, BaseModel) else inner, value)


def settings(value: Any) -> list[BaseModel]:
    """Models that a value makes of settings which are not fields of its own."""
    if isinstance(value, StrategyParameters):
        return [parse_config(value.strategy, value.root)]
    if isinstance(value, BaseModel) and value.model_config.get("extra") == "allow":
        own = (owner for owner in type(value).__mro__ if owner not in BaseModel.__mro__)
        named = (
            name for owner in own for name, member in vars(owner).items() if _is_property(member)
        )
        made = (getattr(value, name) for name in named)
        return [inner for inner in made if isinstance(inner, BaseModel)]
    return []


def chosen_attacks(value: Any) -> dict[str, AttackConfig]:
    """Settings of the attacks that are not left out, by name."""
    if not isinstance(value, AttacksParameters):
        return {}
    return {name: config for name, (_, config) in value.chosen.items()}


def values(key: str, value: Any) -> dict[str, str]:
    """Dotted key → value as YAML, of everything below a key, containers among them."""
    found = {key: as_yaml(value)} if not isinstance(value, BaseModel) else {}
    if isinstance(value, BaseModel):
        if not isinstance(value, RootModel):
            for name in type(value).model_fields:
                found |= values(f"{key}.{name}", getattr(value, name))
        else:
            found |= values(key, value.root)
        for inner in settings(value):
            found |= values(key, inner)
        for name, inner in chosen_attacks(value).items():
            found |= values(f"{key}.attacks.{name}", inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            found |= values(f"{key}.{name}", inner)
    return found


def as_yaml(value: Any) -> str:
    """A value as it would stand in a configuration file, on one line."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = yaml.safe_dump(_plain_data(value), default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def description(model: type[BaseModel], name: str) -> str:
    """What a field says of itself, or else its class docstring of it; nothing if neither does."""
    for owner in model.__mro__:
        if not (inspect.isclass(owner) and issubclass(owner, BaseModel)):
            continue
        stated = owner.model_fields[name].description if name in owner.model_fields else None
        if stated or name in _attributes(owner):
            return stated or _attributes(owner)[name]
    return ""


@cache
def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """Attribute → text, of the docstring of a class."""
    logging.getLogger("griffe").setLevel(logging.ERROR)
    parsed = Docstring(inspect.cleandoc(model.__doc__ or "")).parse("google")
    return {
        attribute.name: attribute.description
        for section in parsed
        if section.kind is DocstringSectionKind.attributes
        for attribute in section.value
    }


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, alone or beside None."""
    for part in _parts(annotation):
        if inspect.isclass(part) and issubclass(part, BaseModel):
            return part
    return None


def type_name(annotation: Any) -> str:
    """A type in words.

    Example:
        >>> type_name(tuple[str, ...] | None), type_name(Literal["rows", "both"])
        ('list of str, or null', '`rows`, `both`')
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        named = [type_name(part) for part in arguments if part is not type(None)]
        return ", or ".join([*named, *["null"] * (type(None) in arguments)])
    if origin is Annotated:
        limits = ", ".join(filter(None, map(_bound, arguments[1:])))
        return type_name(arguments[0]) + (f" ({limits})" if limits else "")
    if origin is Literal:
        return ", ".join(code(str(choice)) for choice in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is not Ellipsis:
        return f"pair of {type_name(arguments[0])}"
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"mapping: {type_name(arguments[0])} → {type_name(arguments[1])}"
    return {"Path": "path", "Any": "any"}.get(name := annotation.__name__, name)


def _parts(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if union else (annotation,)


def _bound(limit: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    for name, sign in signs.items():
        if hasattr(limit, name):
            return f"{sign} {getattr(limit, name)}"
    if isinstance(limit, bounds.MultipleOf):
        return f"a multiple of {limit.multiple_of}"
    if isinstance(limit, bounds.MinLen):
        return "not empty"
    return "finite" if getattr(limit, "allow_inf_nan", None) is False else ""


def _default(field: FieldInfo) -> str:
    return (
        REQUIRED if field.is_required() else as_yaml(field.get_default(call_default_factory=True))
    )


def _is_property(member: Any) -> bool:
    return isinstance(member, property)


def _plain_data(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain_data(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain_data(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
