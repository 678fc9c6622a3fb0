"""XML elements of Pascal VOC files as JSON types, and back.

An element becomes its text, or an object: ``tag`` -> element or list of elements, ``@name`` ->
attribute, ``#text`` -> text beside these. ``xmltodict`` has the same form, but does not check which
JSON survives the round trip, which is most of this module; ``defusedxml`` refuses document types,
but has no limit of depth, so that the tree builder would remain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

MAX_DEPTH = 50
"""Maximum depth of elements; VOC has 4."""
_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# XML 1.0 has no other characters, and parsers turn a carriage return into a line feed.
_NO_TEXT = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Builder(ET.TreeBuilder):
    """Tree builder that refuses deep nesting and document types, which can expand without limit."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, *_: Any) -> None:
        raise ValueError("declares a document type, which annotations must not have")

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} elements within one another")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag)


def parse_xml(path: Path) -> ET.Element:
    """Return the root element of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not XML, declares a document type or is nested too deeply.
    """
    try:
        return ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Builder()))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"file {path} does not exist") from error
    except (ET.ParseError, OSError, ValueError, LookupError) as error:
        raise ValueError(f"{path} is not an annotation in XML: {error}") from error


def is_xml_text(text: str) -> bool:
    """Return whether an element with this text is read with the same text."""
    return not _NO_TEXT.search(text)


def json_text(data: object) -> str:
    """Return JSON that any file and any XML element can hold."""
    text = json.dumps(data, ensure_ascii=False)
    return text if is_xml_text(text) else json.dumps(data)


def members(element: ET.Element, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Return an element as JSON types, without the tags to leave out."""
    inside: dict[str, list[Any]] = {}
    for child in element:
        if child.tag not in leave_out:
            inside.setdefault(child.tag, []).append(_value(child))
    attributes = {f"@{name}": value for name, value in element.attrib.items()}
    text = element.text or ""
    beside = {"#text": text} if text.strip() else {}
    return attributes | beside | {k: v[0] if len(v) == 1 else v for k, v in inside.items()}


def _value(element: ET.Element) -> Any:
    return members(element) if len(element) or element.attrib else element.text or ""


def add_members(element: ET.Element, inside: Mapping[str, Any]) -> None:
    """Add to an element what ``members`` returned."""
    for key, value in inside.items():
        if key == "#text":
            element.text = value
        elif key.startswith("@"):
            element.set(key[1:], value)
        else:
            for one in value if isinstance(value, list) else [value]:
                child = ET.SubElement(element, key)
                if isinstance(one, Mapping):
                    add_members(child, one)
                else:
                    child.text = one


def are_members(inside: object, leave_out: Collection[str] = (), depth: int = 1) -> bool:
    """Return whether an element with these members is read with the same ones."""
    return (
        isinstance(inside, Mapping)
        and len(inside) > 0
        and depth < MAX_DEPTH - 2
        and all(key not in leave_out and _fits(key, value, depth) for key, value in inside.items())
    )


def _fits(key: str, value: object, depth: int) -> bool:
    if isinstance(value, str):
        name = key[1:] if key[:1] == "@" else key
        kept = key != "#text" or bool(value.strip())
        return kept and (key == "#text" or bool(_TAG.fullmatch(name))) and is_xml_text(value)
    if not _TAG.fullmatch(key):
        return False
    if not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        single = (not isinstance(one, list) and _fits(key, one, depth) for one in value)
        return len(value) > 1 and all(single)
    # An object of text alone would be read as the text.
    return are_members(value, depth=depth + 1) and value != {"#text": value.get("#text")}
