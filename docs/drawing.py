"""The hand that draws all diagrams: boxes, arrows, shapes on the arrows, and one key.

A place is in pixels of a page that is 900 wide, as GitHub shows it; x grows to the right, y down.
Forward arrows are blue. Beside each of them, the gradient comes back in orange. Where no gradient
comes back, the arrow is grey: nothing behind it learns from it.
"""

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from PIL import Image, PngImagePlugin

FORWARD, BACK, FIXED, INK = "#1f5fa8", "#c8501e", "#6e6e6e", "#1a1a1a"
FILLS = {  # kind of box -> its colour
    "learned": "#fdf1c9", "plain": "#eef1f4", "tensor": "#ffffff", "loss": "#f6dfd5",
    "panel": "#ffffff",
}  # fmt: skip
WIDTH, GAP, HEAD = 900, 4.5, 7  # of the page; from an arrow to its middle line; of its head
STYLE = {"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"}  # matplotlib brings both
SIDES = {"left": (0, None), "right": (1, None), "top": (None, 0), "bottom": (None, 1)}

Point = tuple[float, float]


@dataclass
class Box:
    x: float
    y: float
    w: float
    h: float
    title: str
    forward: tuple[str, ...] = ()  # lines below the title, in the colour of forward …
    back: tuple[str, ...] = ()  # … and in that of gradients
    kind: str = "plain"
    size: float = 12

    def at(self, side: str, share: float = 0.5) -> Point:
        """The place on a side, a share of the way along it."""
        across, down = (share if part is None else part for part in SIDES[side])
        return self.x + across * self.w, self.y + down * self.h


@dataclass
class Arrow:
    """From one box to another. `seen` is where the real network shows the tensor, for the test."""

    path: list[Point]
    shape: str
    seen: str
    forward: bool
    back: bool
    start: str
    end: str
    label: int | None  # which stretch of the path has the shape beside it; None: the longest
    shift: Point


@dataclass
class Text:
    x: float
    y: float
    text: str
    colour: str = INK
    size: float = 12
    align: str = "center"
    weight: str = "normal"


@dataclass
class Diagram:
    title: str
    height: float
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def panel(self, name: str, x: float, y: float, w: float, h: float, title: str) -> None:
        """A frame around a part of the picture, its title in the upper left corner."""
        self.boxes[name] = Box(x, y, w, h, "", kind="panel")
        self.text(x + 10, y + 14, title, align="left", weight="bold", size=12.5)

    def box(
        self, name: str, x: float, y: float, w: float, h: float, title: str, forward="", back="",
        kind: str = "plain", size: float = 12,
    ) -> None:  # fmt: skip
        """Its upper left corner, width, height; formulas of both ways, with | between lines."""
        lines = [tuple(re.split(r"\n| \| ", part)) if part else () for part in (forward, back)]
        if name in self.boxes:
            raise ValueError(f"two boxes are called {name!r}")
        self.boxes[name] = Box(x, y, w, h, title, *lines, kind, size)

    def node(self, name: str, x: float, y: float, symbol: str) -> None:
        """A small circle around (x, y): a sum, a product."""
        self.boxes[name] = Box(x - 11, y - 11, 22, 22, symbol, kind="node", size=14)

    def text(self, x: float, y: float, text: str, colour: str = INK, **style) -> None:
        self.texts.append(Text(x, y, text, colour, **style))

    def arrow(
        self, start: str, end: str, shape: str = "", seen: str = "", forward: bool = True,
        back: bool = True, over: float | None = None, around: float | None = None,
        label: int | None = None, shift: Point = (0, 0),
    ) -> None:  # fmt: skip
        """From box to box ("conv"), or to a place on a side ("conv.top", "conv.left 0.3").

        A straight line where it can be, else one with corners: `over` is the y, `around` the x of
        a detour. Without `back` nothing comes back; without `forward` only the gradient is drawn.
        """
        path = self.route(start, end, over, around)
        names = (start.split(".")[0], end.split(".")[0])
        self.arrows.append(Arrow(path, shape, seen, forward, back, *names, label, shift))

    def chain(self, *steps: str | tuple) -> None:
        """Boxes and, between them, what `arrow` is told: a shape, where it is seen, options."""
        for start, (shape, seen, *options), end in zip(
            steps[::2], steps[1::2], steps[2::2], strict=False
        ):
            self.arrow(start, end, shape, seen, **(options[0] if options else {}))

    def route(self, start: str, end: str, over: float | None, around: float | None) -> list[Point]:
        (a, *side_a), (b, *side_b) = (
            re.split(r"[. ]", place, maxsplit=2) for place in (start, end)
        )
        A, B = self.boxes[a], self.boxes[b]
        ends = self.facing(A, B)
        if over is not None:
            ends = [("top" if box.y > over else "bottom") for box in (A, B)]
        elif around is not None:
            ends = [("left" if box.x > around else "right") for box in (A, B)]
        ends = [(given[0] if given else usual) for given, usual in zip((side_a, side_b), ends)]  # noqa: B905
        shares = [float(given[1]) if len(given) > 1 else None for given in (side_a, side_b)]
        p, q = (
            box.at(side, 0.5 if share is None else share)
            for box, side, share in zip((A, B), ends, shares, strict=True)
        )
        if over is not None:
            return [p, (p[0], over), (q[0], over), q]
        if around is not None:
            return [p, (around, p[1]), (around, q[1]), q]
        level = [side in ("left", "right") for side in ends]
        if level == [True, True]:
            p, q = self.straighten(p, q, 1, A.y, A.y + A.h, B.y, B.y + B.h, shares)
            middle = (p[0] + q[0]) / 2
            return [p, q] if p[1] == q[1] else [p, (middle, p[1]), (middle, q[1]), q]
        if level == [False, False]:
            p, q = self.straighten(p, q, 0, A.x, A.x + A.w, B.x, B.x + B.w, shares)
            middle = (p[1] + q[1]) / 2
            return [p, q] if p[0] == q[0] else [p, (p[0], middle), (q[0], middle), q]
        return [p, (q[0], p[1]) if level[0] else (p[0], q[1]), q]

    @staticmethod
    def facing(A: Box, B: Box) -> list[str]:
        """The sides that two boxes turn to each other."""
        if A.x + A.w <= B.x:
            return ["right", "left"]
        if B.x + B.w <= A.x:
            return ["left", "right"]
        return ["bottom", "top"] if A.y + A.h <= B.y else ["top", "bottom"]

    @staticmethod
    def straighten(p: Point, q: Point, axis: int, a0, a1, b0, b1, shares) -> tuple[Point, Point]:
        """One line instead of a step, where both sides have room for it."""
        low, high = max(a0, b0), min(a1, b1)
        if high - low < 2 * GAP or None not in shares:
            return p, q
        place = (low + high) / 2
        if shares[0] is not None:
            place = p[axis]
        elif shares[1] is not None:
            place = q[axis]
        if not low <= place <= high:
            return p, q
        moved = [list(p), list(q)]
        moved[0][axis] = moved[1][axis] = place
        return tuple(moved[0]), tuple(moved[1])

    # ---- drawing ----

    def draw(self) -> Figure:
        with rc_context(STYLE):
            figure = Figure(figsize=(WIDTH / 100, self.height / 100), facecolor="white")
            FigureCanvasAgg(figure)
            axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(self.height, 0))
            axes.axis("off")
            write(axes, Text(WIDTH / 2, 17, self.title, size=15, weight="bold"))
            for box in self.boxes.values():
                draw_box(axes, box)
            for arrow in self.arrows:
                draw_arrow(axes, arrow)
            for text in self.texts:
                write(axes, text)
            self.draw_key(axes)
        return figure

    def draw_key(self, axes) -> None:
        """The same in every picture, at its foot."""
        y = self.height - 16
        for x, colour, name in (
            (14, FORWARD, "forward: data"),
            (166, BACK, "back: gradients"),
            (326, FIXED, "data, and no gradient comes back"),
        ):
            ends = [(x, y), (x + 30, y)]
            draw_line(axes, ends[::-1] if colour == BACK else ends, colour)
            write(axes, Text(x + 38, y, name, colour, 11.5, "left"))
        for x, kind, name in (
            (602, "learned", "has weights that learn"),
            (790, "plain", "has none"),
        ):
            draw_box(axes, Box(x, y - 8, 24, 16, "", kind=kind))
            write(axes, Text(x + 32, y, name, INK, 11.5, "left"))

    def digest(self) -> str:
        """Says in a picture what was drawn in it: every line, word and colour."""
        axes = self.draw().axes[0]
        parts = [(line.get_xydata().ravel(), line.get_color()) for line in axes.lines]
        parts += [
            ((*text.get_position(), text.get_fontsize()), text.get_text() + text.get_color())
            for text in axes.texts
        ]
        parts += [
            (part.get_extents().bounds, to_hex(part.get_facecolor())) for part in axes.patches
        ]
        parts = [([f"{number:.2f}" for number in numbers], words) for numbers, words in parts]
        return hashlib.sha256(repr((self.height, parts)).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """A PNG of few colours, finer than the page, that knows what it is a picture of."""
        fine = io.BytesIO()
        self.draw().savefig(fine, dpi=160, format="png")
        image = Image.open(fine).convert("RGB")
        image = image.quantize(palette=palette(), dither=Image.Dither.NONE)
        note = PngImagePlugin.PngInfo()
        note.add_text("Description", self.digest())
        path.parent.mkdir(exist_ok=True)
        image.save(path, optimize=True, pnginfo=note)


def palette() -> Image.Image:
    """All colours, and between a line and what it is on two steps: the same in every picture."""
    grounds = [to_rgb(colour) for colour in FILLS.values()]
    inks = [to_rgb(colour) for colour in (FORWARD, BACK, FIXED, INK)]
    colours = grounds + inks
    for ground in grounds:
        for ink in inks:
            for share in (1 / 3, 2 / 3):
                mixed = (share * i + (1 - share) * g for i, g in zip(ink, ground, strict=True))
                colours.append(tuple(mixed))
    image = Image.new("P", (1, 1))
    image.putpalette([round(255 * part) for colour in colours for part in colour])
    return image


def spelled_out(words: str) -> str:
    """LaTeX without the two abbreviations of the descriptions."""
    return words.replace(r"\dL", r"\partial L/\partial ").replace(r"\W", r"\mathbf{W}")


def write(axes, text: Text) -> None:
    words = spelled_out(text.text)
    axes.text(
        text.x, text.y, words, color=text.colour, fontsize=text.size * 0.72, ha=text.align,
        va="center_baseline" if "\n" not in words else "center", weight=text.weight, zorder=5,
        linespacing=1.25,
    )  # fmt: skip


def draw_box(axes, box: Box) -> None:
    if box.kind == "node":
        middle = (box.x + box.w / 2, box.y + box.h / 2)
        axes.add_patch(Circle(middle, box.w / 2, facecolor="white", edgecolor=INK, lw=1, zorder=3))
        write(axes, Text(*middle, box.title, size=box.size))
        return
    edge, order = ("#d5d5d5", 0) if box.kind == "panel" else ("#555555", 3)
    axes.add_patch(
        FancyBboxPatch(
            (box.x + 4, box.y + 4),
            box.w - 8,
            box.h - 8,
            boxstyle="round,pad=4,rounding_size=4",
            facecolor=FILLS[box.kind],
            edgecolor=edge,
            lw=0.9,
            zorder=order,
        )  # fmt: skip
    )
    lines = [(line, INK, "bold") for line in box.title.split("\n") if line]
    lines += [(line, FORWARD, "normal") for line in box.forward]
    lines += [(line, BACK, "normal") for line in box.back]
    for n, (line, colour, weight) in enumerate(lines):
        y = box.y + box.h * (n + 0.5) / len(lines)
        if len(box.title.split("\n")) == len(lines):  # a name alone stands close together
            y = box.y + box.h / 2 + 16 * (n - (len(lines) - 1) / 2)
        write(axes, Text(box.x + box.w / 2, y, line, colour, box.size, weight=weight))


def beside(path: list[Point], distance: float) -> list[Point]:
    """The path moved to the left of where it leads, all corners square."""
    steps = [
        ((q[0] > p[0]) - (q[0] < p[0]), (q[1] > p[1]) - (q[1] < p[1]))
        for p, q in zip(path, path[1:], strict=False)
    ]
    moved = []
    for n, (x, y) in enumerate(path):
        around = {steps[max(n - 1, 0)], steps[min(n, len(steps) - 1)]}
        moved.append(
            (x + distance * sum(s[1] for s in around), y - distance * sum(s[0] for s in around))
        )
    return moved


def draw_line(axes, path: list[Point], colour: str) -> None:
    (px, py), (x, y) = path[-2:]
    length = max(abs(x - px), abs(y - py))
    dx, dy = (x - px) / length, (y - py) / length
    neck = (x - dx * HEAD, y - dy * HEAD)
    axes.plot(*zip(*path[:-1], neck, strict=True), color=colour, lw=1.5, zorder=2)
    wing = 0.5 * HEAD
    corners = [(x, y), (neck[0] - dy * wing, neck[1] + dx * wing)]
    corners.append((neck[0] + dy * wing, neck[1] - dx * wing))
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=4))


def draw_arrow(axes, arrow: Arrow) -> None:
    both = arrow.forward and arrow.back
    for line, colour in lines(arrow):
        draw_line(axes, line, colour)
    if arrow.shape:
        colour = FORWARD if both else FIXED if arrow.forward else BACK
        write(axes, label(arrow, colour))


def lines(arrow: Arrow) -> list[tuple[list[Point], str]]:
    """What is drawn of an arrow: each line with its colour."""
    if not arrow.back:
        return [(arrow.path, FIXED)]
    back = (beside(arrow.path[::-1], GAP if arrow.forward else 0), BACK)
    return [(beside(arrow.path, GAP), FORWARD), back] if arrow.forward else [back]


def label(arrow: Arrow, colour: str) -> Text:
    """The shape, beside the forward arrow."""
    stretches = list(zip(arrow.path, arrow.path[1:], strict=False))
    lengths = [abs(p[0] - q[0]) + abs(p[1] - q[1]) for p, q in stretches]
    n = lengths.index(max(lengths)) if arrow.label is None else arrow.label
    (x0, y0), (x1, y1) = stretches[n]
    x, y = (x0 + x1) / 2 + arrow.shift[0], (y0 + y1) / 2 + arrow.shift[1]
    away = GAP * (arrow.forward and arrow.back) + 5
    if y0 == y1:  # above a line to the right, below one to the left
        rows = arrow.shape.count("\n") + 1
        y += (away + 6 * rows) * (-1 if x1 > x0 else 1)
        return Text(x, y, arrow.shape, colour, 11)
    right = y1 > y0
    return Text(
        x + away * (1 if right else -1), y, arrow.shape, colour, 11, "left" if right else "right"
    )
