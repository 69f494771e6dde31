"""Which packages a function needs where it runs, as far as that is certain.

A package is needed if the function, or what it reaches, refers to something in it, or imports it on
every way through its code. What is imported inside ``try``, ``if``, ``with`` or a loop may be
optional, and does not count. What the program brings along itself, the standard library and mars
are no packages here. `mars.code.functions` attaches the question to each function, and engines on
clusters ask it, once for each.
"""

from __future__ import annotations

import opcode
import sys
from collections.abc import Iterable, Iterator
from types import CodeType

from mars.code import modules
from mars.code.bytecode import facts_of, resolved
from mars.code.origin import is_made_by_hand, is_project_module

_HERE = __name__.partition(".")[0]

_JUMPS = frozenset({*opcode.hasjrel, *opcode.hasjabs})


def certain_imports(code: CodeType) -> Iterator[tuple[int, str]]:
    """What code imports whichever way it takes: how far up it starts, and the name."""
    if not facts_of(code).imports:
        return
    import dis  # late, as on one machine nobody comes here

    caught = [(one.start, one.end) for one in dis.Bytecode(code).exception_entries]  # type: ignore[attr-defined]
    passed_over_until = 0
    constants: list[object] = []
    for instruction in dis.get_instructions(code):
        place = instruction.offset
        if instruction.opcode in _JUMPS and isinstance(instruction.argval, int):
            passed_over_until = max(passed_over_until, instruction.argval)
        elif instruction.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants = [*constants[-1:], instruction.argval]
        elif (
            instruction.opname == "IMPORT_NAME"
            and place >= passed_over_until
            and not any(start <= place < end for start, end in caught)
        ):
            up = constants[0] if len(constants) == 2 else 0
            yield (up if isinstance(up, int) else 0), str(instruction.argval)


def packages_of(
    codes: Iterable[tuple[CodeType, str]], by_name: Iterable[str], installed: Iterable[str]
) -> frozenset[str]:
    """The packages that a function needs.

    Parameters
    ----------
    codes, by_name, installed : iterable
        What it reaches: ``codes``, ``modules`` and ``installed`` of `mars.code.reach.Reach`.
    """
    # A class may name any module as its own.
    names = dict.fromkeys(one for one in installed if one in sys.modules)
    for code, package in codes:
        names.update((resolved(*found, package), None) for found in certain_imports(code))
    seen: set[str] = set()
    pending = [*by_name]
    while pending:
        name = pending.pop()
        record = modules.record_of(name)
        if name in seen or record is None:
            continue
        seen.add(name)
        package = getattr(record.spec, "parent", None) or ""
        for code in record.codes.get("<module>", ()):
            for found in certain_imports(code):
                names[resolved(*found, package)] = None
                pending.append(resolved(*found, package))
    tops = {name.partition(".")[0] for name in names}
    return frozenset(top for top in tops if _is_package(top))


def _is_package(top: str) -> bool:
    if not top or top in sys.stdlib_module_names or top in ("__main__", "__mp_main__", _HERE):
        return False
    module = sys.modules.get(top)
    if module is None:
        return modules.file_of(top) is None
    # What has no spec was made by somebody as the program ran: nobody installs it.
    if getattr(module, "__spec__", None) is None or is_made_by_hand(top, module):
        return False
    return not is_project_module(top) and not _is_project_namespace(module)


def _is_project_namespace(module: object) -> bool:
    """Whether it is a folder without a file of its own, in which the program has its modules."""
    name = getattr(module, "__name__", "")
    return getattr(module, "__file__", None) is None and any(
        one.startswith(f"{name}.") and is_project_module(one) for one in list(sys.modules)
    )
