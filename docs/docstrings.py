"""For the site: the library's docstrings, which are plain text, as Markdown. A griffe extension, named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTIONS = "Parameters|Returns|Raises|Yields"
HEAD = re.compile(rf"^({SECTIONS})\n-+$", re.M)
ITEM = re.compile(r"^(\S[^:\n]*?) : ?(.*)$")


def markdown(text: str) -> str:
    """Sections become bold headings over lists, doctests become fences; formulas, which are indented, are code already."""
    out: list[str] = []
    fenced = listed = False
    for line in HEAD.sub(lambda match: f"**{match[1]}**", text).split("\n"):
        code = line.startswith(">>>") or (fenced and line.strip() != "")
        if code != fenced:
            out += ["", "```pycon"] if code else ["```", ""]
            fenced = code
        if line.strip() in {f"**{name}**" for name in SECTIONS.split("|")}:
            listed = True
            out += ["", line, ""]
        elif listed and not fenced and (item := ITEM.match(line)):
            out.append(f"- `{item[1]}`: {item[2]}")
        else:
            listed = listed and line != ""
            out.append(line)
    return "\n".join([*out, "```"] if fenced else out)


class Docstrings(griffe.Extension):
    """Rewrites every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
