"""Faces in photographs: the cascade of MTCNN, for many pictures of any size, in few programs.

    detector = make_detector()
    faces = detector([picture, ...])  # of each: boxes, scores, landmarks

What comes out is what the package `mtcnn` 1.0.0 finds in one picture at a time, up to rounding: its
pyramid (areas averaged, a factor of 0.709 a level), its thresholds, its offsets, and its
suppression, in which a box gives way to any better one that covers it, even to one that itself
gives way. Two things differ:

- A patch for the second and third net is taken from the picture halved so often (areas averaged)
  that its points are about a pixel apart. The package averaged areas before release 1.0, and
  facenet-pytorch does; release 1.0 samples points of the picture as it is: large faces alias, and
  many with a mask are lost. `averaged=False` is that, up to rounding.
- There the package fills small pictures of a batch up to the largest, here every picture stands for
  itself.

Shapes that depend on the pictures would mean new programs for every folder. Instead:

- The pictures of a group lie one behind the other in one buffer, as sums over all pixels above and
  to the left (modulo 2**32, which differences do not notice). The mean of any area, with fractions
  of pixels at its edges, is then a matter of four entries, and so a pixel of any level of any
  picture is gathered at the same cost, and exactly.
- Levels are cut into strips of 64 rows, which stand side by side on canvases of one size. PNet sees
  12 x 12 pixels at a time, so strips that overlap by 10 give the results of the whole level.
- Candidates go through RNet and ONet in chunks, and through the suppression in lists of few
  lengths.

So there are at most 18 programs on a CPU for pictures of up to 64 megapixels, however many they
are: one of each net for every size of the buffer (BUFFERS), and one for every length of a list
(LISTS); elsewhere 30, because nets are also called with more at once (CANVASES, PATCHES).

On a CPU most of the time goes to PNet's convolutions and to gathering its pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from research.faces import mtcnn_weights
from research.models import mtcnn
from research.runtime import sharding
from research.structs import Array, PyTree, UserError

FACTOR = 0.709  # between the scales of two levels
ROWS, COLUMNS = 64, 1024  # of a canvas
CANVASES = (1, 16)  # in a call of PNet; the CPU, which gains nothing by many, takes the first
PATCHES = {"rnet": (24, (64, 1024)), "onet": (48, (16, 256))}  # size, and patches in a call
BUFFERS = tuple(2**n for n in (19, 22, 24, 26))  # entries of the buffer of a group
GROUP = BUFFERS[1]  # pixels of a group of several pictures
_HALVINGS = 7  # of a picture, for patches: 48 pixels of them are 6,144
LISTS = tuple(4**n for n in (4, 5, 6, 7, 8, 9))  # candidates in a call of the suppression
MOST = 16_384  # candidates of one level of one picture, the best
_STRIPS = 1 + COLUMNS // 14  # most on a canvas: the smallest has 12 columns
_STEP = ROWS - mtcnn.WINDOW + mtcnn.STRIDE  # rows from one strip to the next
_BLOCK = 128  # candidates that are compared with as many others at once
_PIECE = 2  # columns between possible beginnings of strips


class Detections(NamedTuple):
    """The faces of one picture, best first, in its pixels; all float32.

    boxes: [n, 4], left, top, right, bottom, within the picture.  scores: [n], probabilities.
    landmarks: [n, 5, 2], x and y of both eyes, the nose and both corners of the mouth, of each pair
    first the one that is left in the picture; they may lie outside.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


class Thresholds(NamedTuple):
    """Probabilities above which a candidate is kept: by PNet, by RNet, by ONet."""

    pnet: float = 0.6
    rnet: float = 0.7
    onet: float = 0.8


THRESHOLDS = Thresholds()


def make_detector(
    *, min_face_px: float = 20.0, thresholds: Thresholds = THRESHOLDS, averaged: bool = True
) -> "Detector":
    """A detector with the weights of the package `mtcnn`.

    min_face_px: side of the smallest faces looked for, in pixels; at least 4.  averaged: whether
    patches are taken from a picture that is halved, see above.
    Raises UserError if it is smaller, or if the weights are missing (`mtcnn_weights.load`).
    """
    if not min_face_px >= 4:
        raise UserError(f"min_face_px: {min_face_px} is below 4, and so are no faces")
    return Detector(mtcnn_weights.load(), float(min_face_px), thresholds, averaged)


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds faces; see `make_detector`.  params: of the three nets."""

    params: Mapping[str, PyTree]
    min_face_px: float
    thresholds: Thresholds
    averaged: bool

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of every picture [H, W, 3] uint8, RGB.

        A picture whose shorter side is below min_face_px has none.  Raises ValueError for another
        shape or dtype.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"a picture is {image.dtype} {image.shape}, not uint8 [H, W, 3]")
        detections: list[Detections] = []
        for group in _groups(images):
            detections.extend(self._detect(group))
        return detections

    def _detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One group, in one buffer."""
        levels = [
            level
            for i, image in enumerate(images)
            for level in plan_levels(i, image.shape, self.min_face_px)
        ]
        buffer = make_buffer(images)
        candidates = self._propose(buffer, levels)
        candidates = _pick(candidates, _survivors(candidates, candidates.image, 0.7))
        for net, limit in (("rnet", self.thresholds.rnet), ("onet", self.thresholds.onet)):
            candidates = self._refine(net, buffer, candidates)
            candidates = _pick(candidates, candidates.scores > limit)
            candidates = _pick(
                candidates, _survivors(candidates, candidates.image, 0.7, smaller=net == "onet")
            )
        return [
            _finish(_pick(candidates, candidates.image == i), image.shape)
            for i, image in enumerate(images)
        ]

    def _propose(self, buffer: "Buffer", levels: Sequence["Level"]) -> "_Candidates":
        """Candidates of PNet on all levels, after the suppression within each level."""
        canvases, level_of = lay_out(levels, buffer)
        parts: list[_Candidates] = [_no_candidates()]
        groups: list[np.ndarray] = [np.zeros(0, np.int32)]
        image_of = np.array([level.image for level in levels], np.int32)
        for first, batch, boxes, scores in self._windows(buffer, canvases):
            which, row, column = np.nonzero(scores > self.thresholds.pnet)
            level = level_of[first + which, batch.strip_below[which, column]]
            groups.append(level)
            parts.append(
                _Candidates(
                    boxes[which, row, column],
                    scores[which, row, column],
                    np.zeros((len(which), 2, 5), np.float32),
                    image_of[level],
                )
            )
        candidates = _join(parts)
        return _pick(candidates, _survivors(candidates, np.concatenate(groups), 0.5))

    def _windows(
        self, buffer: "Buffer", canvases: Sequence["Canvas"]
    ) -> Iterator[tuple[int, "Canvas", np.ndarray, np.ndarray]]:
        """Number of the first canvas, canvases, and PNet's boxes and scores, call by call.

        A call is dispatched before the results of the previous one are copied to the host, so that
        the device computes while the host selects windows.
        """
        waiting = None
        for first, count in _calls(len(canvases), CANVASES):
            part = canvases[first : first + count]
            batch = _stack([*part, *[_empty_canvas()] * (count - len(part))])
            boxes, scores = _program("pnet")(self.params["pnet"], buffer.sums, batch)
            if waiting:
                yield *waiting[:2], np.asarray(waiting[2]), np.asarray(waiting[3])
            waiting = first, batch, boxes, scores
        if waiting:
            yield *waiting[:2], np.asarray(waiting[2]), np.asarray(waiting[3])

    def _refine(self, net: str, buffer: "Buffer", candidates: "_Candidates") -> "_Candidates":
        """The candidates with the boxes, scores and landmarks that RNet or ONet gives them.

        Calls take one of two numbers of candidates, padded by empty boxes, so that a
        photograph with another number of candidates compiles nothing.
        """
        parts = [_no_candidates()]
        for first, count in _calls(len(candidates.scores), PATCHES[net][1]):
            part = _pick(candidates, slice(first, first + count))
            real = len(part.scores)
            image = np.pad(part.image, (0, count - real))
            outputs = _program(net if self.averaged else f"{net}_of_points")(
                self.params[net],
                buffer.pixels,
                np.pad(part.boxes, ((0, count - real), (0, 0))),
                buffer.halved[image],
                buffer.sizes[image],
            )
            boxes, scores, points = (np.asarray(array)[:real] for array in outputs)
            parts.append(_Candidates(boxes, scores, points, part.image))
        return _join(parts)


class _Candidates(NamedTuple):
    """Candidates: boxes [n, 4], scores [n], points [n, 2, 5] float32, and their image [n] int32."""

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray
    image: np.ndarray


def _no_candidates() -> _Candidates:
    boxes, scores, points = (np.zeros((0, *s), np.float32) for s in ((4,), (), (2, 5)))
    return _Candidates(boxes, scores, points, np.zeros(0, np.int32))


def _join(parts: Sequence[_Candidates]) -> _Candidates:
    boxes, scores, points, image = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _Candidates(boxes, scores, points, image)


def _pick(candidates: _Candidates, which: np.ndarray | slice) -> _Candidates:
    return _Candidates(*(array[which] for array in candidates))


def _finish(candidates: _Candidates, shape: Sequence[int]) -> Detections:
    """Boxes cut at the picture's edges, best first; those outside of it are left out."""
    height, width = shape[:2]
    ends = np.array([width, height] * 2, np.float32)
    boxes = np.clip(candidates.boxes, 0, ends)
    order = np.argsort(-candidates.scores, kind="stable")
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
    return Detections(
        boxes[order], candidates.scores[order], candidates.points[order].swapaxes(1, 2)
    )


def _groups(images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Consecutive pictures that fit into one buffer of GROUP entries, or one larger picture.

    Pictures share calls of the nets: a small one alone would fill few of the windows of a call.
    """
    group: list[np.ndarray] = []
    for image in images:
        if group and _entries([*group, image]) > GROUP:
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def _calls(total: int, counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of calls that take `total` items, `count` being one of the two of `counts`.

    Two shapes are compiled instead of one for every number of items.  The last call is a large one
    if more than large - small items are left; the CPU has no use for large calls.
    """
    small, large = counts[0], counts[0 if jax.default_backend() == "cpu" else 1]
    first = 0
    while first < total:
        count = large if total - first > large - small else small
        yield first, count
        first += count


def _size_of(needed: int, sizes: Sequence[int]) -> int:
    """The first of the sizes that suffices; beyond the last, four times that, and so on."""
    size = next((size for size in sizes if size >= needed), 0)
    return size or _size_of(needed, [4 * sizes[-1]])


class Buffer(NamedTuple):
    """The pictures of a group, one behind the other, each with a row and a column more.

    sums: [N, 3] uint32, of the pixels above and to the left, modulo 2**32.
    pixels: [3 N / 2] uint32, red + 256 green + 65536 blue; the last row and column hold nothing.
    Behind all pictures they stand halved, again and again, without such a row and column.
    bases: [I] int32, the first entry of every picture.  sizes: [I, 2] int32, rows and columns.
    halved: [I, 1 + _HALVINGS] int32, the first entry of pixels of every picture, as it is, halved
    once, and so on.
    """

    sums: jax.Array
    pixels: jax.Array
    bases: np.ndarray
    sizes: np.ndarray
    halved: np.ndarray


def _entries(images: Sequence[np.ndarray]) -> int:
    return sum((image.shape[0] + 1) * (image.shape[1] + 1) for image in images)


def make_buffer(images: Sequence[np.ndarray]) -> Buffer:
    """Put pictures [H, W, 3] uint8 into a buffer of one of the sizes in BUFFERS."""
    size = _size_of(_entries(images), BUFFERS)
    sums, pixels = _aligned((size, 3)), _aligned((3 * size // 2,))
    bytes_of = pixels.view(np.uint8).reshape(-1, 4)  # red first, on machines that JAX runs on
    bases: list[int] = []
    halved = np.zeros((len(images), 1 + _HALVINGS), np.int32)
    base, end = 0, _entries(images)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        count = (height + 1) * (width + 1)
        table = sums[base : base + count].reshape(height + 1, width + 1, 3)
        table[0] = table[:, 0] = 0
        table[1:, 1:] = image
        for row in range(2, height + 1):  # NumPy's own sum along columns is many times slower
            table[row] += table[row - 1]
        _ = np.cumsum(table[1:, 1:], axis=1, dtype=np.uint32, out=table[1:, 1:])
        colours = bytes_of[base : base + count].reshape(height + 1, width + 1, 4)
        colours[:-1, :-1, :3], colours[:-1, :-1, 3] = image, 0
        bases.append(base)
        halved[i] = base
        base += count
        for level in range(1, 1 + _HALVINGS):
            side, (rows, columns) = 2**level, (height >> level, width >> level)
            if not rows or not columns:
                break
            corners = table[: rows * side + 1 : side, : columns * side + 1 : side]
            areas = np.diff(np.diff(corners, axis=0), axis=1)
            means = (areas + np.uint32(side**2 // 2)) >> np.uint32(2 * level)
            bytes_of[end : end + rows * columns, :3] = means.reshape(-1, 3)
            halved[i, level] = end
            end += rows * columns
    return Buffer(
        jax.device_put(sums),
        jax.device_put(pixels),
        np.array(bases, np.int32),
        np.array([image.shape[:2] for image in images], np.int32),
        halved,
    )


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint32 array whose address suits JAX, which need not copy it then on a CPU.

    What is never written costs no memory either, so the end of a buffer that is too large is free.
    """
    count, step = math.prod(shape), 64 // 4
    flat = np.empty(count + step, np.uint32)
    first = -flat.ctypes.data % 64 // 4
    return flat[first : first + count].reshape(shape)


class Level(NamedTuple):
    """One level of a picture's pyramid.

    image: number of the picture.  scale: of the level.  source: the picture's rows and columns.
    size: the level's.
    """

    image: int
    scale: float
    source: tuple[int, int]
    size: tuple[int, int]

    @property
    def windows(self) -> tuple[int, int]:
        """Rows and columns of what PNet makes of it."""
        rows, columns = ((n - 1) // 2 - 4 for n in self.size)
        return rows, columns


def plan_levels(image: int, shape: Sequence[int], min_face_px: float) -> list[Level]:
    """The levels of a picture: on the first, the smallest faces are 12 pixels high."""
    source, levels = (int(shape[0]), int(shape[1])), []
    scale = mtcnn.WINDOW / min_face_px
    while min(source) * scale >= mtcnn.WINDOW:
        size = (int(source[0] * scale), int(source[1] * scale))
        levels.append(Level(image, scale, source, size))
        scale *= FACTOR
    return levels


@flax.struct.dataclass
class Canvas:
    """The sources of the pixels of a canvas, and the places of its windows; S strips.

    x: [COLUMNS + 1, 2], left edge of every column in its picture: whole pixels, and the fraction as
    a numerator; int32.  A strip has one more edge than columns.
    strip: [COLUMNS + 1] int32, the strip of every edge; S - 1 is none.
    y: [S, ROWS + 1, 2] int32, upper edges.  rows: [S] int32, those that are filled.
    parts: [S, 2] uint32, denominators of the fractions of y and x.
    base, pitch: [S] int32, of the picture in the buffer.  weight: [S] float32, factor from a sum
    to a mean.
    strip_below: [W'] int32, the strip of every column of windows.  corner_x: [W'] float32, of the
    windows, in pixels of the level.  corner_y: [S] float32, of the first row of windows.
    window_rows: [S] int32, rows of windows that count.  scale: [S] float32, of the level.
    """

    x: Array
    strip: Array
    y: Array
    rows: Array
    parts: Array
    base: Array
    pitch: Array
    weight: Array
    strip_below: Array
    corner_x: Array
    corner_y: Array
    window_rows: Array
    scale: Array


_WINDOWS = (COLUMNS - 2) // 2 - 4  # columns of windows of a canvas


def _empty_canvas() -> Canvas:
    def whole(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int32)

    def real(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    none = _STRIPS - 1
    return Canvas(
        x=whole(COLUMNS + 1, 2), strip=whole(COLUMNS + 1) + none, y=whole(_STRIPS, ROWS + 1, 2),
        rows=whole(_STRIPS), parts=np.ones((_STRIPS, 2), np.uint32), base=whole(_STRIPS),
        pitch=whole(_STRIPS), weight=real(_STRIPS),
        strip_below=whole(_WINDOWS) + none, corner_x=real(_WINDOWS), corner_y=real(_STRIPS),
        window_rows=whole(_STRIPS), scale=real(_STRIPS),
    )  # fmt: skip


def _stack(canvases: Sequence[Canvas]) -> Canvas:
    return jax.tree.map(lambda *arrays: np.stack(arrays), *canvases)


def lay_out(levels: Sequence[Level], buffer: Buffer) -> tuple[list[Canvas], np.ndarray]:
    """Cut levels into strips and stand them side by side on canvases.

    Returns the canvases and [canvases, S] int32, the level of every strip.
    """
    canvases: list[Canvas] = []
    numbers: list[np.ndarray] = []
    column = count = COLUMNS  # where the next strip begins, and its number: of no canvas yet
    for number, level in enumerate(levels):
        window_rows, window_columns = level.windows
        for row in range(0, window_rows, _STEP // 2):
            begun = 0  # columns of windows that are done
            while begun < window_columns:
                left = level.size[1] - 2 * begun
                if COLUMNS - column < min(left, ROWS):
                    canvases.append(_empty_canvas())
                    numbers.append(np.zeros(_STRIPS, np.int32))
                    column = count = 0
                width = min(left, COLUMNS - column)
                windows = min(window_columns - begun, (width - mtcnn.WINDOW) // 2 + 1)
                if width == left:
                    windows = window_columns - begun
                _place(canvases[-1], count, column, level, (row, begun), (width, windows), buffer)
                numbers[-1][count] = number
                begun += windows
                count += 1
                column += (width + 2) // 2 * 2  # after the edge that closes it, at an even column
    return canvases, np.array(numbers).reshape(-1, _STRIPS)


def _place(
    canvas: Canvas,
    strip: int,
    column: int,
    level: Level,
    window: tuple[int, int],
    extent: tuple[int, int],
    buffer: Buffer,
) -> None:
    """Enter a strip: from a window of its level on, of so many columns of pixels and of windows."""
    (row, begun), (width, windows) = window, extent
    rows = min(ROWS, level.size[0] - 2 * row)
    parts = _parts(level)
    canvas.x[column : column + width + 1] = _edges(level, 1, 2 * begun, width, parts[1])
    canvas.strip[column : column + width + 1] = strip
    canvas.y[strip] = _edges(level, 0, 2 * row, ROWS, parts[0])
    canvas.rows[strip] = rows
    canvas.base[strip] = buffer.bases[level.image]
    canvas.pitch[strip] = level.source[1] + 1
    canvas.parts[strip] = parts
    ratios = [a / b for a, b in zip(level.source, level.size, strict=True)]
    canvas.weight[strip] = 1 / (ratios[0] * parts[0] * ratios[1] * parts[1])
    place = slice(column // 2, column // 2 + windows)
    canvas.strip_below[place] = strip
    canvas.corner_x[place] = 2 * np.arange(begun, begun + windows)
    canvas.corner_y[strip] = 2 * row
    canvas.window_rows[strip] = min(_STEP // 2, level.windows[0] - row)
    canvas.scale[strip] = level.scale


def _parts(level: Level) -> tuple[int, int]:
    """Into how many parts a pixel is divided, by rows and by columns.

    As many as the level has rows or columns, and every edge is exact: then the sum of one of the
    level's pixels is at most 255 times the picture's area. Where that is not below 2**32 (from 16
    megapixels on), there are fewer parts, and edges are rounded.
    """
    share = math.sqrt(2**32 / (256 * level.source[0] * level.source[1]))
    rows, columns = (max(1, int(size * min(1.0, share))) for size in level.size)
    return rows, columns


def _edges(level: Level, axis: int, first: int, count: int, parts: int) -> np.ndarray:
    """Positions in the picture of count + 1 edges of a level's rows or columns, [count + 1, 2]."""
    source, size = level.source[axis], level.size[axis]
    edges = np.minimum(np.arange(first, first + count + 1, dtype=np.int64), size)
    positions = (2 * edges * source * parts + size) // (2 * size)
    return np.stack(np.divmod(positions, parts), axis=1)


def _draw(sums: jax.Array, canvas: Canvas) -> tuple[jax.Array, jax.Array]:
    """Pixels [ROWS, COLUMNS, 3] of one canvas, and which of them are inside a strip."""
    strip = jnp.asarray(canvas.strip)
    x, right = jnp.asarray(canvas.x[:, 0]), canvas.x[:, 1].astype(jnp.uint32)[None, :, None]
    y = canvas.y[strip].swapaxes(0, 1)
    below = y[..., 1:].astype(jnp.uint32)
    parts_y, parts_x = (canvas.parts[strip][None, :, None, i] for i in (0, 1))
    pitch = canvas.pitch[strip][None]
    at = (canvas.base[strip] + x)[None] + y[..., 0] * pitch

    def between(at: jax.Array) -> jax.Array:
        """The sums at an edge's x, times the number of parts."""
        here, after = (sums.at[at + i].get(mode="clip") for i in (0, 1))
        return (parts_x - right) * here + right * after

    corners = (parts_y - below) * between(at) + below * between(at + pitch)
    columns = corners[:, 1:] - corners[:, :-1]
    areas = (columns[1:] - columns[:-1]).astype(jnp.float32)
    pixels = mtcnn.normalise(areas * canvas.weight[strip][None, :-1, None])
    alike = (strip[1:] == strip[:-1])[None]
    inside = alike & (jnp.arange(ROWS)[:, None] < canvas.rows[strip][None, :-1])
    return pixels, inside


def _pnet(params: PyTree, sums: jax.Array, canvases: Canvas) -> tuple[jax.Array, jax.Array]:
    """Boxes [K, H', W', 4] in pixels of the pictures, and scores [K, H', W'], 0 between strips."""
    drawn = jax.vmap(functools.partial(_draw, sums))(canvases)
    pixels, inside = jax.lax.optimization_barrier(drawn)  # or XLA draws for every use of a pixel
    outputs: Any = mtcnn.PNet().apply({"params": params}, pixels, inside)
    offsets, scores = outputs

    def finish(canvas: Canvas, offsets: jax.Array, scores: jax.Array) -> tuple[Any, Any]:
        strip = jnp.asarray(canvas.strip_below)
        row = jnp.arange(scores.shape[0])[:, None]
        real = row < canvas.window_rows[strip][None]
        x = jnp.broadcast_to(jnp.asarray(canvas.corner_x)[None], scores.shape)
        y = canvas.corner_y[strip][None] + 2 * row.astype(jnp.float32)
        # A window of pixels 0 .. 11 counts as 1 .. 12, and as 11 wide, as it does in `mtcnn`.
        first = jnp.stack([x, y], axis=-1) + 1
        side = mtcnn.WINDOW - 1
        corners = jnp.concatenate([first, first + side], axis=-1)
        boxes = (corners + side * offsets) / canvas.scale[strip][None, :, None]
        return boxes, jnp.where(real, scores, 0)

    return jax.vmap(finish)(canvases, offsets, scores)


def _cut(
    pixels: jax.Array,
    box: jax.Array,
    bases: jax.Array,
    size: jax.Array,
    *,
    side: int,
    averaged: bool,
) -> jax.Array:
    """A patch [side, side, 3] of a picture, sampled between four pixels at every point; grey
    outside of the picture.

    The corners of the box are first moved by a factor (n - 1) / n, n the picture's side, as
    TensorFlow's crop_and_resize does with the relative positions that `mtcnn` gives it.
    averaged: where points are far apart, they are sampled from the picture halved as often as
    brings them nearest to a pixel apart.
    """
    last = (size - 1).astype(jnp.float32)
    steps = jnp.arange(side, dtype=jnp.float32)
    level = jnp.int32(0)
    if averaged:
        step = (box[3] - box[1]) * last[0] / (last[0] + 1) / (side - 1)
        halvings = jnp.minimum(jnp.log2(jnp.maximum(step, 1)), jnp.log2(jnp.min(last) + 1) - 0.5)
        level = jnp.clip(jnp.round(halvings).astype(jnp.int32), 0, _HALVINGS)

    def points(axis: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        low, high = box[1 - axis], box[3 - axis]
        factor = last[axis] / (last[axis] + 1)
        at = low * factor + steps * ((high - low) * factor / (side - 1))
        inside = (at >= 0) & (at <= last[axis])
        end = last[axis]
        if averaged:
            at = (at + 0.5) * jnp.exp2(-level.astype(jnp.float32)) - 0.5
            end = ((size[axis] >> level) - 1).astype(jnp.float32)
        at = jnp.clip(at, 0, end)
        before = jnp.floor(at)
        after = jnp.ceil(at)
        return before.astype(jnp.int32), after.astype(jnp.int32), at - before, inside

    top, bottom, down, rows = points(0)
    left, right, across, columns = points(1)
    pitch = jnp.where(level == 0, size[1] + 1, size[1] >> level)

    def colours(y: jax.Array, x: jax.Array) -> jax.Array:
        packed = pixels.at[bases[level] + y[:, None] * pitch + x[None]].get(mode="clip")
        shifts = jnp.array([0, 8, 16], jnp.uint32)
        return ((packed[..., None] >> shifts[None, None]) & np.uint32(255)).astype(jnp.float32)

    across, down = across[None, :, None], down[:, None, None]
    upper = colours(top, left) * (1 - across) + colours(top, right) * across
    lower = colours(bottom, left) * (1 - across) + colours(bottom, right) * across
    patch = mtcnn.normalise(upper * (1 - down) + lower * down)
    return jnp.where((rows[:, None] & columns[None])[..., None], patch, 0)


def _refine(
    net: str,
    averaged: bool,
    params: PyTree,
    pixels: jax.Array,
    boxes: jax.Array,
    bases: jax.Array,
    size: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes [C, 4], scores [C] and points [C, 2, 5] from the candidates' boxes made square."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = jnp.max(sides, axis=1, keepdims=True)
    first = boxes[:, :2] + (sides - side) / 2
    boxes = jnp.concatenate([first, first + side], axis=1)
    cut = functools.partial(_cut, pixels, side=PATCHES[net][0], averaged=averaged)
    patches = jax.vmap(cut)(boxes, bases, size)
    extent = boxes[:, 2:] - boxes[:, :2] + 1
    module = mtcnn.RNet() if net == "rnet" else mtcnn.ONet()
    outputs: Any = module.apply({"params": params}, patches)
    offsets, *points, scores = outputs
    points = points[0] if points else jnp.zeros((len(boxes), 2, 5), jnp.float32)
    points = extent[:, :, None] * points + boxes[:, :2, None] - 1
    return boxes + offsets * jnp.tile(extent, (1, 2)), scores, points


def _survivors(
    candidates: _Candidates, groups: np.ndarray, limit: float, *, smaller: bool = False
) -> np.ndarray:
    """Indices of those that no better one of their group covers, by group and then best first.

    limit: the most that two may share, of their union, or of the smaller one if `smaller`.
    Of equal scores the later counts as the better, as it does in `mtcnn`.
    """
    total = len(groups)
    order = np.lexsort((-np.arange(total), -candidates.scores, groups))
    begins = np.searchsorted(groups[order], groups[order])
    kept = np.arange(total) - begins < MOST
    order = order[kept]
    begins = np.searchsorted(groups[order], groups[order])
    size = _size_of(len(order), LISTS)
    missing = size - len(order)
    boxes = np.pad(candidates.boxes[order], ((0, missing), (0, 0)))
    begins = np.pad(begins, (0, missing), constant_values=size)
    first = begins[::_BLOCK] // _BLOCK
    keep = _program("suppress")(
        boxes, begins.astype(np.int32), first.astype(np.int32), np.float32(limit), np.bool_(smaller)
    )
    return order[np.asarray(keep)[: len(order)]]


def _suppress(
    boxes: jax.Array, begins: jax.Array, first: jax.Array, limit: jax.Array, smaller: jax.Array
) -> jax.Array:
    """[M] bool: whether no box before this one, in its group, shares more than `limit` with it.

    begins: [M] int32, where its group begins.  first: [M / _BLOCK], the block of the first group's
    begin, for every block.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def block(number: jax.Array) -> jax.Array:
        def part(array: jax.Array, number: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(array, number * _BLOCK, _BLOCK)

        mine, area = part(boxes, number)[None], part(areas, number)[None]
        begin = part(begins, number)[None]
        index = jnp.arange(_BLOCK)

        def compare(other: jax.Array, beaten: jax.Array) -> jax.Array:
            theirs, their_area = part(boxes, other)[:, None], part(areas, other)[:, None]
            low = jnp.maximum(mine[..., :2], theirs[..., :2])
            high = jnp.minimum(mine[..., 2:], theirs[..., 2:])
            shared = jnp.prod(jnp.maximum(high - low, 0), axis=-1)
            union = area + their_area - shared
            ratio = shared / jnp.where(smaller, jnp.minimum(area, their_area), union)
            before = (index + other * _BLOCK)[:, None] < (index + number * _BLOCK)[None]
            grouped = (index + other * _BLOCK)[:, None] >= begin
            return beaten | jnp.any((ratio > limit) & before & grouped, axis=0)

        return jax.lax.fori_loop(first[number], number + 1, compare, jnp.zeros(_BLOCK, jnp.bool_))

    return ~jax.lax.map(block, jnp.arange(len(first))).reshape(-1)


@functools.cache
def _program(name: str) -> jax.stages.Wrapped:
    """The compiled function of a stage."""
    return jax.jit(STAGES[name], compiler_options=sharding.compiler_options())


STAGES = {
    "pnet": _pnet,
    "rnet": functools.partial(_refine, "rnet", True),
    "onet": functools.partial(_refine, "onet", True),
    "rnet_of_points": functools.partial(_refine, "rnet", False),
    "onet_of_points": functools.partial(_refine, "onet", False),
    "suppress": _suppress,
}
