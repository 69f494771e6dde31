"""Code of modules as it is in their files, and what code reads by name.

Called by `mars.checkpoint.walk`. `mars.code.bytecode` reads code faster, but does not say which
attributes are asked of a name. Here these attributes decide which part of a module counts.
"""

from __future__ import annotations

import dis
import os
from types import CodeType

from mars.code.modules import Source, text_of


def loads(code: CodeType) -> list[tuple[str, tuple[str, ...]]]:
    """List what code reads by name: global names with the attributes asked of them, and imports.

    An import has the name "import", and the name of the module in the place of attributes.
    """
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    pending = [code]
    while pending:
        one = pending.pop()
        pending.extend(c for c in one.co_consts if isinstance(c, CodeType))
        name: str | None = None
        chain: list[str] = []
        constants: list[object] = []
        for step in dis.get_instructions(one):
            if name is not None and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                chain.append(step.argval)
                continue
            if name is not None:
                found[name, tuple(chain)] = None
                name = None
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                name, chain = step.argval, []
            elif step.opname == "IMPORT_NAME":
                level = next((c for c in constants[-2:] if isinstance(c, int)), 0)
                found["import", ("." * level + step.argval,)] = None
                members = constants[-1] if constants else None
                if isinstance(members, tuple):  # `from package import module`
                    for member in members:
                        dot = "" if step.argval == "" else "."
                        found["import", (f"{'.' * level}{step.argval}{dot}{member}",)] = None
            if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                constants = [*constants[-1:], step.argval]
        if name is not None:
            found[name, tuple(chain)] = None
    return sorted(found)


def compiled(path: str) -> CodeType | None:
    """Compile a source file. Its code does not depend on comments. None: it cannot be read."""
    try:
        stamp = os.stat(path).st_mtime_ns
        known = _of_files.get(path)
        if known is None or known[0] != stamp:
            with open(path, "rb") as file:
                made = compile(file.read(), path, "exec", dont_inherit=True, optimize=0)
            known = _of_files[path] = (stamp, made)
        return known[1]
    except (OSError, SyntaxError, ValueError):
        return None


_of_files: dict[str, tuple[int, CodeType]] = {}


def compiled_source(source: Source) -> CodeType | None:
    """Compile a module as the program had it, whatever its file holds by now."""
    known = _of_sources.get(source.digest)
    if known is None:
        text = text_of(source.digest)
        if text is None:
            return compiled(source.file)
        try:
            known = compile(text, source.file, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            return None
        _of_sources[source.digest] = known
    return known


_of_sources: dict[bytes, CodeType] = {}
