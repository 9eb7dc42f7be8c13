"""Text of users (names of columns, levels, files; cells in messages) on its way to a terminal or a page.

A terminal acts on control characters: an escape sequence can clear the screen, retitle the window, or rewrite
what was printed; a bidirectional mark turns the digits of a number round. XML, and with it SVG, has no
control characters at all. So each is shown by its number, as Python writes it: \\x1b, \\u202e. What a file
holds (JSON, a saved fit) is the name itself.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .types import Plain

# control characters but tab and line feed; format characters (bidirectional marks, invisible ones); line
# separators; lone surrogates
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u06dd\u070f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with every character that a terminal would act on, or that cannot be seen, written by its
    number.

    Examples
    --------
    >>> printable("price\\x1b[2J"), printable("é θ 日本 🙂")
    ('price\\\\x1b[2J', 'é θ 日本 🙂')
    """
    return text if _UNSEEN.search(text) is None else _UNSEEN.sub(_number, text)


ASCII = {
    "−": "-", "–": "-", "—": "-", "…": "...", "’": "'", "‘": "'", "“": '"', "”": '"', "·": "*", "×": "x", "÷": "/",
    "±": "+/-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "→": "->", "←": "<-", "√": "sqrt", "²": "2",
    "³": "3", "‖": "||", "∂": "d", "Σ": "Sum", "Π": "Prod", "∫": "Int", "α": "alpha", "β": "beta", "γ": "gamma",
    "δ": "delta", "ε": "epsilon", "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "ℓ": "l",
    "ᵀ": "'", "⁻": "-", "¹": "1", "⁰": "0", "∈": "in", "∘": "o", "ᵢ": "_i", "₀": "0", "₁": "1",
    "₂": "2", "\u0302": "", "•": "*", "─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "━": "-", "█": "#",
}  # fmt: skip


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Of what an encoding lacks: its nearest in ASCII, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


ERRORS = "thetahat"  # a handler of codecs
codecs.register_error(ERRORS, _in_ascii)


def encodable(text: str) -> str:
    """The text as standard output can encode it: − is - where the encoding has no −.

    Examples
    --------
    >>> "−1.5 ≤ χ²".encode("ascii", "thetahat")
    b'-1.5 <= chi2'
    """
    encoding = sys.stdout.encoding if sys.stdout is not None else None
    return text if not encoding else text.encode(encoding, ERRORS).decode(encoding)


def encoded(method: Callable[[Plain], str]) -> Callable[[Plain], str]:
    """A `__str__` whose text standard output can encode: `print(fit.summary())` works on any terminal."""

    @functools.wraps(method)
    def shown(self: Plain) -> str:
        return encodable(method(self))

    return shown


def in_json(text: str) -> str:
    r"""JSON that means the same, with such characters as \uXXXX.

    Examples
    --------
    >>> in_json('{"a\u202e": 1}')
    '{"a\\u202e": 1}'
    """
    return _UNSEEN.sub(_json_number, text)


def everywhere(value: Plain) -> Plain:
    """Every text within a value made printable: in lists, tuples, dictionaries and dataclasses. What needs no
    change is the same object."""
    if type(value) is str:
        return printable(value)
    if type(value) in (list, tuple):
        parts = [everywhere(each) for each in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    if isinstance(value, dict):
        pairs = [(everywhere(k), everywhere(v)) for k, v in value.items()]
        same = all(k is a and v is b for (k, v), (a, b) in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: vars(value)[f.name] for f in dataclasses.fields(value) if f.init}
        changed = {name: new for name, old in fields.items() if (new := everywhere(old)) is not old}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def console(**settings: Plain) -> Any:
    """rich's console, on which every text is printable."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(self, renderable: Any, options: Plain = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # where rich ends the process

    return Printable(**settings)


def as_text(renderable: Plain, width: int = 110) -> str:
    """What rich would print of it, without colours and bold letters, whatever the environment asks of terminals.

    Examples
    --------
    >>> from rich.text import Text
    >>> as_text(Text("±1", style="bold"))
    '±1'
    """
    own = console(width=width, color_system=None, force_terminal=False, force_jupyter=False, highlight=False)
    with own.capture() as capture:
        own.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_number(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in (0x0D,):  # between values, a carriage return is white space
        return found[0]
    units = [code] if code < 0x10000 else [0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF)]
    return "".join(f"\\u{unit:04x}" for unit in units)
