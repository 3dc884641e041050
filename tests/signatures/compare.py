"""What of the recorded public names is missing here, or takes other arguments."""

import importlib
import inspect
from collections.abc import Iterator, Mapping


def differences(module: str, names: dict, instances: Mapping[type, object]) -> Iterator[tuple[str, str]]:
    """Pairs (name, what differs) for one recorded module: functions, and classes with their members.

    `instances` has an object of each class whose fields are set when an object is made.
    """
    try:
        place = importlib.import_module(f"transformer_lens.{module}")
    except ModuleNotFoundError:
        yield module, "no such module"
        return
    for name, recorded in names.items():
        full = f"{module}.{name}"
        found = getattr(place, name, None)
        if found is None:
            yield full, "missing"
        elif isinstance(recorded, str):
            yield from arguments_differ(full, found, recorded)
        else:
            yield from members_differ(full, found, recorded, instances)


def members_differ(
    full: str, found: type, members: dict[str, str], instances: Mapping[type, object]
) -> Iterator[tuple[str, str]]:
    """Pairs (name, what differs) for the fields, properties and methods of a class."""
    fields = {name for base in found.__mro__ for name in inspect.get_annotations(base)}
    fields |= set(dir(instances.get(found, found)))
    for name, recorded in members.items():
        if name == "__init__":
            yield from arguments_differ(f"{full}.__init__", found.__init__, recorded)
        elif name not in fields:
            yield f"{full}.{name}", "missing"
        elif recorded != "." and not isinstance(member := inspect.getattr_static(found, name), property):
            method = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            yield from arguments_differ(f"{full}.{name}", method, recorded)


def arguments_differ(full: str, found: object, recorded: str) -> Iterator[tuple[str, str]]:
    """One pair (name, difference) if a call that fits the recorded parameters may not fit these."""
    ours = inspect.signature(found).parameters.values()
    wanted = inspect.signature(stub(recorded)).parameters.values()
    problem = difference(list(ours), list(wanted))
    if problem:
        yield full, problem


def stub(recorded: str) -> object:
    """A function with these parameters; `name=` is an optional one."""
    scope: dict[str, object] = {}
    exec(f"def f({recorded.replace('=', '=None')}): ...", scope)
    return scope["f"]


def difference(ours: list[inspect.Parameter], wanted: list[inspect.Parameter]) -> str:
    """What stands in the way of calling `ours` as `wanted` is called; empty if nothing does."""
    kinds = inspect.Parameter
    by_name = {parameter.name: parameter for parameter in ours}
    takes_any = any(p.kind is kinds.VAR_KEYWORD for p in ours)
    takes_more = any(p.kind is kinds.VAR_POSITIONAL for p in ours)
    places = [p.name for p in ours if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    order = [p.name for p in wanted if p.kind is kinds.POSITIONAL_OR_KEYWORD]
    named = [p for p in wanted if p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)]
    lacking = [p.name for p in named if p.name not in by_name]
    if lacking and not takes_any:
        return f"takes no {', '.join(lacking)}"
    if not takes_more and places[: len(order)] != order:
        return f"positional arguments are {places}, recorded {order}"
    required = {p.name for p in wanted if p.default is kinds.empty}
    needed = [
        p.name for p in ours if p.default is kinds.empty and p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    ]
    extra = [name for name in needed if name not in required]
    return f"needs {', '.join(extra)}" if extra else ""
