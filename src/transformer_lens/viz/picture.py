"""What every function of this package returns: a picture that can be saved, or shown in a notebook."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformer_lens.viz import html
from transformer_lens.viz.arrays import Json
from transformer_lens.viz.figure import Figure, new_figure, write_title


@dataclass(frozen=True)
class Picture:
    """A picture in two forms: interactive HTML, and a static PNG (which needs matplotlib).

    A notebook shows the interactive form. Fields other than the
    title and the caption belong to this package: ``kind`` and ``data`` are what the script reads, ``draw`` fills a
    matplotlib figure of ``size`` inches.
    """

    title: str
    caption: str
    kind: str = field(repr=False)
    data: dict[str, Json] = field(repr=False)
    size: tuple[float, float] = field(repr=False)
    draw: Callable[[Figure], None] = field(repr=False)

    def captioned(self, caption: str) -> "Picture":
        """The same picture with this caption below its HTML form; `quoted` words in it are set as code."""
        return replace(self, caption=caption)

    def html(self) -> str:
        """A fragment of HTML that works on its own: data, style and script are inside, nothing is fetched."""
        return html.style() + self.figure_html(heading="div") + html.script()

    def figure_html(self, *, heading: str) -> str:
        """The fragment without style and script, for a page that has them once."""
        return html.figure(self.kind, self.data, title=self.title, caption=self.caption, heading=heading)

    def figure(self) -> Figure:
        """The static form as a new matplotlib ``Figure``, to change or to save in another format.

        Raises:
            MissingMatplotlibError: matplotlib is not installed.
        """
        figure = new_figure(self.size)
        self.draw(figure)
        write_title(figure, self.title)
        return figure

    def save(self, path: str | Path) -> Path:
        """Writes a ``.png`` or ``.html`` file and returns its path.

        Raises:
            ValueError: the name ends in something else.
            MissingMatplotlibError: a PNG is asked for and matplotlib is not installed.
        """
        target = Path(path)
        match target.suffix.lower():
            case ".png":
                self.figure().savefig(target, format="png")
            case ".html":
                target.write_text(html.document(self.html(), title=self.title or "Picture"), encoding="utf-8")
            case other:
                raise ValueError(
                    f"cannot save a picture as {other or 'a file without a suffix'!r} ({target.name}): "
                    "the name must end in .png or .html (for another format, use .figure().savefig)"
                )
        return target

    def _repr_html_(self) -> str:
        return self.html()
