"""The table of OCPP messages, read off the code: what stations tell and who answers, what we say and from where.

Nobody keeps the table by hand. What we say is followed backwards through the sources: from the codecs, whose functions
name the messages, over the verbs, to the office's actions, the pages and the gateway's own duties.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from csms.schemas import V16, V201, dialect

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("csms", "smartcharging", "webapp")
_SPEAKS: Mapping[str, Any] = {V16: ocpp16, V201: ocpp201}
_FOLDER = {V16: "csms.ocpp16", V201: "csms.ocpp201"}
_TITLE = {V16: "OCPP 1.6", V201: "OCPP 2.0.1"}
_BY_ITSELF = {"csms.session.Session.ask", "csms.session.Session.ask_of_our_own"}
_ELSEWHERE = {"webapp.driver": "driver's page", "webapp.api": "REST", "webapp.demo": ""}

_BEGIN = """# OCPP messages

Made by `manage.py ocpp_table` from the code and tested against it; after a change of messages or of actions, make it
anew. Words in “quotes” are actions of the office.

Every message of ours can also be sent as it is written, by `POST /api/v1/stations/<identity>/ocpp/` with `action` and
`payload`; it is checked against its schema first. Only passwords have a door of their own, `…/password/`. What a
station sends and this page does not have is answered with *NotImplemented* where its version has no such message, and
with *NotSupported* where the message is ours to send.
"""


@dataclass
class Function:
    """A function or method of the sources: whom it names, and what it is called in the office."""

    name: str
    names: set[str] = field(default_factory=set)
    label: str = ""
    actions: set[str] = field(default_factory=set)


def markdown() -> str:
    """The page."""
    parts = [_BEGIN]
    for version in (V201, V16):
        parts += [
            f"\n## {_TITLE[version]}\n\n### The station tells, we answer\n\n| message | answered in |\n|---|---|\n"
        ]
        parts += [f"| {action} | {place} |\n" for action, place in answered(version)]
        parts += ["\n### We ask\n\n| message | from where |\n|---|---|\n"]
        parts += [f"| {action} | {', '.join(places) or 'as it is written'} |\n" for action, places in asked(version)]
    return "".join(parts)


def answered(version: str) -> Iterator[tuple[str, str]]:
    """Each message of stations, and the function that answers it."""
    for action, handler in sorted(_SPEAKS[version].HANDLERS.items()):
        path = Path(inspect.getsourcefile(handler) or "").relative_to(ROOT)
        yield action, f"`{path}: {handler.__name__}`"


def asked(version: str) -> Iterator[tuple[str, list[str]]]:
    """Each message of ours, and from where it is sent."""
    speaks = dialect(version)
    said = _said(version)
    for action in sorted(speaks.requests):
        if action in _SPEAKS[version].HANDLERS and action != "DataTransfer":
            continue
        yield action, sorted(said.get(action, ()), key=lambda place: (not place.startswith("the gateway"), place))


def _said(version: str) -> dict[str, set[str]]:
    """The places each message is sent from, by following who names whom."""
    functions = _functions()
    other = _FOLDER[V16 if version == V201 else V201]
    found: dict[str, set[str]] = {}
    for start in functions.values():
        place = _place(start, version)
        if not place:
            continue
        for action in _reached(start, functions, other):
            found.setdefault(action, set()).add(place)
    return found


def _place(function: Function, version: str) -> str:
    """What people call the place a function is used from; "" where it is none."""
    module = function.name.rpartition(".")[0]
    if function.label:
        return f"“{function.label}”"
    if module.startswith(f"{_FOLDER[version]}.station") or function.names & _BY_ITSELF:
        return "the gateway by itself"
    if ".tasks" in module:
        return "the clock"
    return next((word for folder, word in _ELSEWHERE.items() if module.startswith(folder)), "")


def _reached(start: Function, functions: Mapping[str, Function], other: str) -> set[str]:
    """The messages made by what `start` names, and by what that names, and so on; not through the other dialect."""
    seen: set[str] = set()
    waiting = [start.name]
    actions: set[str] = set()
    while waiting:
        name = waiting.pop()
        function = functions.get(name)
        if name in seen or function is None or name.startswith(other):
            continue
        seen.add(name)
        actions |= function.actions
        waiting += function.names
    return actions


# ---------------------------------------------------------------------- reading the sources


@cache
def _functions() -> dict[str, Function]:
    trees = dict(_trees())
    known: dict[str, Function] = {}
    spoken: dict[str, set[str]] = {}
    for module, tree in trees.items():
        for name, node in _defined(module, tree):
            known[name] = Function(name, label=_label(node), actions=_actions(module, node))
            if known[name].actions:
                spoken.setdefault(node.name, set()).add(name)
    for module, tree in trees.items():
        imports = _imports(tree)
        speaks = (
            any(target.startswith(tuple(_FOLDER.values())) for target in imports.values()) or module == "csms.calls"
        )
        for name, node in _defined(module, tree):
            known[name].names = set(_named(module, name, node, imports, known, spoken if speaks else {}))
    return known


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "migrations" not in path.parts and "simulator" not in path.parts:
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())


_Def = ast.FunctionDef | ast.AsyncFunctionDef


def _defined(module: str, tree: ast.Module) -> Iterator[tuple[str, _Def]]:
    for node in tree.body:
        if isinstance(node, _Def):
            yield f"{module}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, _Def):
                    yield f"{module}.{node.name}.{inner.name}", inner


def _label(node: _Def) -> str:
    """The name of an action of the office: the first words given to its decorator."""
    for made in node.decorator_list:
        if isinstance(made, ast.Call) and getattr(made.func, "id", "") in ("daily", "listed") and made.args:
            words = [n.value for n in ast.walk(made.args[0]) if isinstance(n, ast.Constant)]
            return str(words[0]) if words else ""
    return ""


def _actions(module: str, node: _Def) -> set[str]:
    """The messages a codec's function makes: the names among what it returns."""
    version = next((v for v, folder in _FOLDER.items() if module.startswith(folder)), None)
    if version is None or "Call" not in ast.unparse(node.returns or ast.Constant("")):
        return set()
    requests = dialect(version).requests
    returned = [
        n for r in ast.walk(node) if isinstance(r, ast.Return) and r.value is not None for n in ast.walk(r.value)
    ]
    return {n.value for n in returned if isinstance(n, ast.Constant) and n.value in requests}


def _imports(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _named(
    module: str,
    own: str,
    node: _Def,
    imports: Mapping[str, str],
    known: Mapping[str, Function],
    spoken: Mapping[str, Iterable[str]],
) -> Iterator[str]:
    """The functions named inside a function. A codec chosen by the connection stands for those of both dialects."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield from (n for n in (imports.get(part.id, ""), f"{module}.{part.id}") if n in known)
        elif isinstance(part, ast.Attribute):
            if isinstance(part.value, ast.Name) and part.value.id in imports:
                yield f"{imports[part.value.id]}.{part.attr}"
            elif ast.unparse(part.value) in ("session", "self._session"):
                yield f"csms.session.Session.{part.attr}"
            elif isinstance(part.value, ast.Name) and part.value.id == "self":
                yield f"{own.rpartition('.')[0]}.{part.attr}"
            else:
                yield from spoken.get(part.attr, ())
