"""Live: the hook points of a model at which somebody looks, without asking the others."""

from __future__ import annotations

from collections.abc import Iterator

from transformer_lens.hooks.hook_point import HookPoint, is_live


class Live:
    """The hook points at which somebody looks, of those that `HookPoint.announce_to` this.

    Points say so themselves when their hooks change, so that a pass costs nothing for the points at which nobody looks.
    A copy is empty: hook points that are copied with it announce themselves to it.

    Example:
        >>> live, points = Live(), [HookPoint() for _ in range(1000)]
        >>> for point in points:
        ...     point.announce_to(live)
        >>> handle = points[7].add_hook(print)
        >>> list(live) == [points[7]]
        True
    """

    def __init__(self) -> None:
        self._heard: dict[HookPoint, None] = {}

    def hear(self, point: HookPoint) -> None:
        """The hooks of a point have changed."""
        if is_live(point):
            self._heard[point] = None
        else:
            self.forget(point)

    def forget(self, point: HookPoint) -> None:
        """A point announces itself no more."""
        self._heard.pop(point, None)

    def __iter__(self) -> Iterator[HookPoint]:
        # NOTE: a hook of torch's own is removed from a point without its knowledge.
        return iter([point for point in self._heard if is_live(point)])

    def __reduce__(self) -> tuple[type[Live], tuple[()]]:
        return Live, ()
