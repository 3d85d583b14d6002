"""What a struct's fields hold, in words: the reference pages of topics and configuration are made of it.

A struct's docstring says what its fields mean, as `name: text` or `name, other: text`, one after the other. Type,
bounds and default come from the struct itself, the unit from the field's name.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from .topics import NAME

# By what a name ends with; the longest that fits counts.
_UNITS = {
    "_ms": "ms",
    "_s": "s",
    "_hz": "Hz",
    "_bps": "bit/s",
    "_bytes": "bytes",
    "bytes_up": "bytes",
    "_mb": "MB",
    "_px": "pixels",
    "_power_w": "W",
    "energy_j": "J",
    "_prompt_token": "J",
    "_completion_token": "J",
}


@dataclass(frozen=True, slots=True)
class DescribedField:
    """One field. type: with its bounds; default: as TOML writes it, "none" for a key that is left out there (TOML has
    no null), None where the field must be given.

    unit: empty where its name has none. about: what the docstring says of it, empty where that is silent.
    """

    name: str
    type: str
    default: str | None
    unit: str
    about: str


def described_fields(struct: type[Struct]) -> tuple[DescribedField, ...]:
    """In the struct's order."""
    about = field_texts(struct)
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(
        DescribedField(field.name, _in_words(field.type), _default(field), _unit(field.name), about.get(field.name, ""))
        for field in info.fields
    )


def summary(struct: type[Struct]) -> str:
    """What the docstring says before it comes to single fields, as one paragraph."""
    text = _own_docstring(struct)
    first = next(iter(_entries(struct, text)), None)
    return " ".join((text if first is None else text[: first.start()]).split())


def field_texts(struct: type[Struct]) -> dict[str, str]:
    """By field: what the docstrings of the struct and of its bases say, the nearest winning."""
    texts: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not (isinstance(base, type) and issubclass(base, Struct)) or base is Struct:
            continue
        text = _own_docstring(base)
        entries = list(_entries(struct, text))
        ends = [*(entry.start() for entry in entries), len(text)][1:]
        for entry, end in zip(entries, ends, strict=True):
            # An empty line ends an entry, unless what follows is indented as its continuation.
            said = re.split(r"\n\s*\n(?! )", text[entry.end() : end])[0]
            for name in entry["names"].split(", "):
                texts[name] = " ".join(said.split()).rstrip(";")
    return texts


def _own_docstring(struct: type) -> str:
    # `__doc__` is inherited by nobody, unlike what inspect.getdoc() gives.
    return inspect.cleandoc(struct.__doc__ or "")


def _entries(struct: type[Struct], text: str) -> list[re.Match[str]]:
    """Where `name: ` or `name, other: ` begins, at the start of a line or of a sentence, for fields that exist."""
    name = "|".join(sorted(map(re.escape, struct.__struct_fields__), key=len, reverse=True))
    pattern = rf"(?:^[ ]*|(?<=[.;] )|(?<=\) ))(?P<names>(?:{name})(?:, (?:{name}))*): "
    return list(re.finditer(pattern, text, re.MULTILINE)) if name else []


def _unit(name: str) -> str:
    fitting = [suffix for suffix in _UNITS if name.endswith(suffix)]
    return _UNITS[max(fitting, key=len)] if fitting else ""


def _default(field: Any) -> str | None:
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return None
    return "none" if value is None else msgspec.json.encode(value, enc_hook=str).decode()


def _in_words(kind: Any) -> str:
    """A msgspec type as people say it, with its bounds."""
    match type(kind).__name__:
        case "BoolType":
            return "true or false"
        case "IntType" if (kind.ge, kind.le) == (0, 2**53):
            return "count"
        case "IntType":
            return f"whole number{_bounds(kind)}"
        case "FloatType":
            return f"number{_bounds(kind)}"
        case "StrType" if kind.pattern == f"^{NAME.pattern}":
            return "name"
        case "StrType" if kind.pattern:
            longest = re.search(r"\{0,(\d+)\}\\Z\Z", kind.pattern)
            return f"line of text (at most {longest[1]} characters)" if longest else f"text like {kind.pattern}"
        case "StrType":
            return f"text{_length(kind, 'characters')}"
        case "BytesType" | "MemoryViewType":
            return f"bytes{_length(kind, 'bytes')}"
        case "LiteralType":
            return " or ".join(f'"{value}"' for value in kind.values)
        case "UnionType":
            return " or ".join(sorted(map(_in_words, kind.types), key=lambda words: words == "none"))
        case "NoneType":
            return "none"
        case "VarTupleType" | "ListType":
            return f"list{_length(kind, 'items')} of: {_in_words(kind.item_type)}"
        case "TupleType":
            return f"list of {len(kind.item_types)}: {', '.join(map(_in_words, kind.item_types))}"
        case "DictType":
            return f"table{_length(kind, 'keys')} by {_in_words(kind.key_type)} of: {_in_words(kind.value_type)}"
        case "StructType" if kind.array_like:
            return f"list of {len(kind.fields)}: {', '.join(field.name for field in kind.fields)}"
        case "StructType":
            return kind.cls.__name__
        case other:
            raise TypeError(f"no words for {other}: add them to {__name__}")


def _bounds(kind: Any) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" ({_plain(kind.ge)} to {_plain(kind.le)})"
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    said = [f"{words} {_plain(getattr(kind, key))}" for key, words in signs.items() if getattr(kind, key) is not None]
    return f" ({', '.join(said)})" if said else ""


def _length(kind: Any, what: str) -> str:
    least, most = kind.min_length, kind.max_length
    if least and most:
        return f" ({_plain(least)} to {_plain(most)} {what})"
    if most:
        return f" (at most {_plain(most)} {what})"
    return f" (at least {_plain(least)} {what})" if least else ""


def _plain(number: float) -> str:
    """Large powers of two as such."""
    if isinstance(number, float):
        return f"{number:,.15g}"
    for less, suffix in ((0, ""), (1, " - 1")):
        power = (number + less).bit_length() - 1
        if power >= 20 and number + less == 1 << power:
            return f"2^{power}{suffix}"
    return f"{number:,}"
