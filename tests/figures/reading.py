"""Readings of a drawn figure, for the tests of all figures."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

CAPTION = "MNIST SAMPLE, 4,000 train / 1,000 test (wheel), sha256 1a2b3c4d"
LONG_CAPTION = f"{CAPTION * 3} {'a8' * 32}"
BAND = "5 seeds: median and min-max band"


def x_of(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata())


def y_of(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata())


def texts(figure: Figure) -> str:
    """All visible text of the figure's own strips, on one line."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def bands(axis: Axes) -> list[FillBetweenPolyCollection]:
    return [c for c in axis.collections if isinstance(c, FillBetweenPolyCollection)]


def check_layout(figure: Figure) -> None:
    """No text leaves the page or touches axes or other text; sizes are those of print."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {f"text {i}": t.get_window_extent() for i, t in enumerate(figure.texts)}
    boxes |= {f"legend {i}": g.get_window_extent() for i, g in enumerate(figure.legends)}
    boxes |= {f"axes {i}": a.get_tightbbox() or a.bbox for i, a in enumerate(figure.axes)}
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0, name
        assert box.x1 <= figure.bbox.width + 0.5 and box.y1 <= figure.bbox.height, name
    for (one, a), (two, b) in itertools.combinations(boxes.items(), 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) <= 0.5, (one, two, overlap)
    sizes = [float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text()]
    assert (min(sizes), max(sizes)) == (7, 9)
