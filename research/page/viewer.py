"""What the notebooks show: the committed records, or a run of the reader's, read and made visible.

A notebook defines nothing. It asks for a study, draws with `research.figures`, and what stands last
in a cell is shown: `Text` and `Picture` say by themselves how, in Jupyter or elsewhere. What a
record does not hold is `Missing`, a sentence in the place of data, which `drawn` shows instead of a
figure, so that a notebook always runs to its end.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from research.data import datasets
from research.ledger import published, text, verdicts
from research.ledger.tables import classifiers as classifier_tables
from research.ledger.tables import masks as mask_tables
from research.ledger.tables import noise as noise_tables
from research.page import drawings
from research.storage import attack_files, run_directory
from research.structs import UserError
from research.training.scores import confusion, roc, softmax

ROOT = Path(__file__).parents[2]
RECORDS = "results"  # of the repository: what is committed of the runs behind its tables

_DPI, _SHOWN_DPI = 160, 100  # of the pixels, and of the size at which a notebook shows them
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_LEVELS = 255
_MOST = 10  # pictures below each other
_MOST_NETS = 7  # lines that are told apart


@dataclass(frozen=True)
class Text:
    """Markdown that a notebook shows as such."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __repr__(self) -> str:
        return self.markdown


@dataclass(frozen=True)
class Missing(Text):
    """Why something cannot be shown, and what to do for it."""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows: PNG, width in pixels of the page, words in its place."""

    png: bytes
    width: int
    words: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png, "text/plain": self.words}, {
            "image/png": {"width": self.width, "alt": self.words}
        }

    def __repr__(self) -> str:
        return f"<picture: {self.words}>"


class Arguments(dict[str, Any]):
    """Keyword arguments of a function of `research.figures`, made from records."""


def drawn(draw: Callable[..., Figure], what: Any, **settings: Any) -> Picture | Missing:
    """The figure `draw(what, **settings)` as a picture, or why there is none.

    what: the first argument, or `Arguments` in its place, or `Missing`.
    """
    if isinstance(what, Missing):
        return what
    given = isinstance(what, Arguments)
    figure = draw(**what, **settings) if given else draw(what, **settings)
    content = io.BytesIO()
    figure.savefig(content, dpi=_DPI, format="png")
    words = settings.get("title", "a figure")
    return Picture(content.getvalue(), round(_SHOWN_DPI * figure.get_figwidth()), words)


def picture(file: Path | Missing, words: str) -> Picture | Missing:
    """A picture file as it is, at most as wide as a page; words: what it shows."""
    if isinstance(file, Missing):
        return file
    image = Image.open(file).convert("RGB")
    image.thumbnail((1400, 2800), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "PNG")
    return Picture(content.getvalue(), min(image.width, 720), words)


class Study:
    """Records of one experiment: those of results/, or of one run directory.

    run: "results", or a directory, absolute or below the root of the repository.
    Raises UserError if there is no finished run of that experiment in it.
    """

    command = ""  # that makes such a run

    def __init__(self, run: str = RECORDS) -> None:
        self.workdir = None if run == RECORDS else ROOT / run
        if self.workdir is not None:
            summary = run_directory.finished_summary(self.workdir)
            if summary is None or not self._fits(summary):
                raise UserError(
                    f"{run} holds no finished run of this kind; make one: {self.command}"
                )

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The judged ledger: by this run, as far as it may judge claims, else by the records."""
        return self._judged[0]

    @property
    def about(self) -> Text:
        """Where the numbers come from, and whether they judge the claims."""
        if self.workdir is None:
            return Text(f"The committed records of `{RECORDS}/`. {self._origin()}")
        caption = self._read("versions.json")["data"]["caption"]
        why = self._judged[1]
        judge = f"the committed records, for {why}" if why else "this run, as far as it may"
        return Text(
            f"The run in `{self.workdir}`: {self._summary['headline']}. Data: {caption}.\n\n"
            f"The claims below are judged by {judge}."
        )

    def claims(self, part: str, *ids: str) -> Text:
        """The rows of the ledger of one part of the report, "1A" to "3": those named, or all."""
        return Text(text.section([e for e in self.entries if not ids or e["id"] in ids], part))

    def against(self, part: str) -> Text:
        """The rows of a part that do not hold, or not as they are stated."""
        kept = [e for e in self.entries if e["verdict"] in ("CONTRADICTED", "TREND-ONLY")]
        return Text(text.section(kept, part))

    def counts(self, *parts: str) -> Text:
        """How many claims of these parts have which verdict."""
        table = verdicts.counts(self.entries)
        total: Counter[str] = Counter()
        for part in parts:
            total.update(table[part])
        return Text(", ".join(f"{count} {name}" for name, count in total.items() if count))

    @cached_property
    def _judged(self) -> tuple[list[dict[str, Any]], str]:
        """The ledger, and why it is not this run's if it is not."""
        if self.workdir is None:
            return verdicts.judged(ROOT), ""
        try:
            return verdicts.judged(ROOT, [self.workdir]), ""
        except UserError as error:
            return verdicts.judged(ROOT), str(error)

    @property
    def _summary(self) -> dict[str, Any]:
        return self._read("summary.json")

    def _fits(self, summary: Mapping[str, Any]) -> bool:
        raise NotImplementedError

    def _origin(self) -> str:
        raise NotImplementedError

    def _read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run, or of results/."""
        return run_directory.read_json((self.workdir or ROOT / RECORDS) / name) or {}


class Depth(Study):
    """Exercise 1: accuracies, curves and gradients of the nets of the depth study."""

    command = "python -m research.main --config=configs/mlp.py:all --config.seeds=3"

    @property
    def seeds(self) -> int:
        """How many nets there are of every kind."""
        return len(next(iter(self.accuracies.values())))

    @property
    def caption(self) -> str:
        """The data, for figures."""
        name = "depth.json" if self.workdir is None else "versions.json"
        return self._read(name)["data"]["caption"]

    @cached_property
    def accuracies(self) -> dict[str, list[float]]:
        """Test accuracy of every net after the last epoch, {"tanh-40": [S]}, as fractions."""
        if self.workdir is None:
            return self._read("depth.json")["test_accuracy"]
        return {
            net: np.atleast_1d(rows[-1]["test_accuracy"]).tolist()
            for net, rows in self._rows.items()
        }

    def gradients(
        self, activations: Sequence[str], *depths: int, statistic: str = "kernel_abs_max"
    ) -> Any:
        """Gradients by layer for `figures.depth`, {"tanh-40": record}."""
        names = [f"{name}-{depth}" for depth in depths for name in activations]
        found = {net: arrays for net in names if (arrays := self._arrays(net, statistic))}
        return found or Missing(f"*This run has no gradients of {', '.join(names)}.*")

    def curves(self, activations: Sequence[str], *depths: int) -> Any:
        """Metrics over the epochs for `figures.curves.draw_learning_curves`."""
        names = [f"{name}-{depth}" for depth in depths for name in activations]
        if self.workdir is None:
            kept = self._read("depth.json")["curves"]
            found = {net: drawings.columns(kept[net], self.seeds) for net in names}
        else:
            found = {net: self._rows[net] for net in names if net in self._rows}
        return found or Missing(f"*This run has none of the nets {', '.join(names)}.*")

    def decays(self) -> Text:
        """By what factor the signal changes a hidden layer before the first step, by net."""
        lines = ["| net | factor a layer | over all hidden layers |", "|---|---:|---:|"]
        for net in self.accuracies:
            if self.workdir is None:
                factors = self._read("gradients.json")["nets"][net]["signal_decay"]
            else:
                factors = _decay(run_directory.gradients(self._folder(net)))
            steps = int(net.partition("-")[2]) - 1
            factor = float(np.mean(factors))
            lines.append(f"| {net} | {factor:.3f} | {factor**steps:.1e} |")
        return Text("\n".join(lines))

    @cached_property
    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """metrics.jsonl of every net of the run."""
        assert self.workdir is not None
        nets = self._summary.get("nets") or [self._summary["net"]]
        return {net: run_directory.rows(self._folder(net)) for net in nets}

    def _folder(self, net: str) -> Path:
        """Where the records of a net lie: a run of a single one has no folders for nets."""
        assert self.workdir is not None
        return self.workdir / net if "nets" in self._summary else self.workdir

    def _arrays(self, net: str, statistic: str) -> dict[str, Any]:
        if self.workdir is not None:
            return run_directory.gradients(self._folder(net)) if net in self._rows else {}
        return drawings.record(self._read("gradients.json"), self.seeds, net, statistic)

    def _fits(self, summary: Mapping[str, Any]) -> bool:
        return ("nets" in summary or "net" in summary) and not {"method", "parameters"} & set(
            summary
        )

    def _origin(self) -> str:
        kept = self._read("depth.json")
        return (
            f"{len(self.accuracies)} nets, {self.seeds} seeds each, {kept['epochs']} epochs. "
            f"Data: {self.caption}. Made by `{kept['command']}`."
        )


class Attack(Study):
    """Exercise 2: images of one data set, "mnist" or "cifar10", attacked toward every class.

    Of a run the first net is shown. `method` is "faithful", the report's, or "minimal", ours.
    """

    command = "python -m research.main --config=configs/noise.py:mnist"

    def __init__(self, run: str, dataset: str) -> None:
        super().__init__(run)
        self.dataset = dataset
        if self.workdir is not None and self._read("config.json")["dataset"] != dataset:
            raise UserError(f"{run} is no attack on {dataset}")
        self.classes = list(datasets.CLASSES[dataset])

    @property
    def caption(self) -> str:
        """The data, for figures."""
        if self.workdir is not None:
            return self._read("versions.json")["data"]["caption"]
        return self._kept("faithful")["data"]["caption"]

    def cells(self, method: str) -> Any:
        """A dict for each cell, an image with a target: image, actual, target, success, l2, ..."""
        if self.workdir is not None:
            if self._summary["method"] != method:
                return Missing(
                    f"*This run has the method {self._summary['method']}, not {method}.*"
                )
            lines = (self.workdir / "cells.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines]
        kept = self._kept(method)
        return [
            {**about, "target": target, **cell}
            for about, row in zip(kept["images"], kept["cells"], strict=True)
            for target, cell in enumerate(row)
        ]

    def grid(self, method: str) -> Any:
        """Pictures and numbers for `figures.noise.draw_grid`: of some images, all classes first."""
        if not (cells := self.cells(method)):
            return cells
        rows = self._chosen(cells)
        clean, made = self._pictures(method, rows)
        numbers = ("predicted", "probability", "success")
        return Arguments(
            clean=clean,
            adversarial=made,
            actual=[row[0]["actual"] for row in rows],
            classes=self.classes,
            **{name: [[cell[name] for cell in row] for row in rows] for name in numbers},
        )

    def examples(self, method: str, count: int = 4) -> Any:
        """Pictures for `figures.noise.draw_noise`: cells that reach another class, by length."""
        if not (cells := self.cells(method)):
            return cells
        rows = self._chosen(cells)
        clean, made = self._pictures(method, rows)
        won = [
            (cell["l2"], i, cell)
            for i, row in enumerate(rows)
            for cell in row
            if cell["success"] and cell["target"] != cell["actual"]
        ]
        if not won:
            return Missing("*No cell of this run reached another class.*")
        won.sort(key=lambda each: each[0])
        places = np.unique(np.linspace(0, len(won) - 1, count).round().astype(int))
        chosen = [won[place] for place in places]
        return Arguments(
            clean=np.stack([clean[i] for _, i, _ in chosen]),
            adversarial=np.stack([made[i, cell["target"]] for _, i, cell in chosen]),
            titles=[
                f"{self.classes[cell['actual']]} to {self.classes[cell['target']]}, L2 {norm:.2f}"
                for norm, _, cell in chosen
            ],
        )

    def norms(self, method: str) -> Any:
        """Columns of the cells for `figures.noise.draw_distributions`."""
        if not (cells := self.cells(method)):
            return cells
        names = ("steps", "l2", "linf", "l0", "success")
        columns = {name: np.array([cell[name] for cell in cells]) for name in names}
        own = np.array([cell["actual"] == cell["target"] for cell in cells])
        return Arguments(**{**columns, "linf": _LEVELS * columns["linf"]}, untargeted=own)

    def matrix(self) -> Any:
        """Counts for `figures.noise.draw_success`: of all cells of a run, or those of the grid."""
        if self.workdir is not None:
            net = next(iter(self._summary["nets"].values()))
            return Arguments(**net["success_matrix"], classes=self.classes)
        if self.dataset != "mnist":
            return Missing("*The records hold the cells of one image: a run has more to count.*")
        won, tried = np.zeros((2, len(self.classes), len(self.classes)), int)
        for cell in self.cells("faithful"):
            tried[cell["actual"], cell["target"]] += 1
            won[cell["actual"], cell["target"]] += cell["success"]
        # The images are chosen among those that the net has right.
        return Arguments(
            won=won, tried=tried, won_correct=won, tried_correct=tried, classes=self.classes
        )

    def robust(self) -> Any:
        """Counts for `figures.noise.draw_robust_accuracy`, of the first nets."""
        found = self._compared("robust_accuracy")
        if not found:
            return Missing("*There is no robust accuracy: `--config.pgd.images=200` measures it.*")
        hits = dict(list(found["hits"].items())[:_MOST_NETS])
        unit = "Linf, levels of 8 bits" if found["norm"] == "linf" else "L2, times 255"
        return Arguments(budgets=found["levels"], hits=hits, count=found["count"], unit=unit)

    def transfer(self) -> Any:
        """Rates for `figures.noise.draw_transfer`, of a run of several nets."""
        found = self._compared("transfer")
        if not found:
            return Missing(
                "*One net alone: nothing can transfer. `--config.baselines` names others.*"
            )
        rates = np.array(found["rates"], np.float64)  # None is NaN
        return Arguments(rates=rates, names=found["names"], counts=found["counts"])

    def table(self) -> Text:
        """What the attacks reach and take, a row for each net and method."""
        return Text(noise_tables.table(self._attacks))

    def classifiers(self) -> Text:
        """The nets of this data set without noise, by the committed records."""
        runs = published.read(ROOT / RECORDS)
        return Text(
            classifier_tables.table(
                [run for name, run in runs.items() if name.startswith(f"cnn-{self.dataset}")]
            )
        )

    def _fits(self, summary: Mapping[str, Any]) -> bool:
        return "method" in summary

    def _origin(self) -> str:
        said = [f"`{self._kept(method)['command']}`" for method in ("faithful", "minimal")]
        images = self._kept("faithful")["images"]
        which = "the first test image of each class that the net has right"
        if len(images) == 1:
            which = f"test image {images[0]['image']}"
        return (
            f"Pictures: {which}. Data: {self.caption}. "
            f"Made by {' and '.join(said)}; the tables and curves have commands of their own."
        )

    def _kept(self, method: str) -> dict[str, Any]:
        return self._read("grids.json")[f"{self.dataset}-{method}"]

    def _compared(self, key: str) -> dict[str, Any]:
        if self.workdir is not None:
            return self._summary.get(key, {})
        return self._attacks[0].summary.get(key, {})

    @property
    def _attacks(self) -> list[run_directory.Run]:
        """The run, or the committed ones with a row in the table of attacks."""
        if self.workdir is not None:
            return [run_directory.load_run(self.workdir)]
        runs = published.read(ROOT / RECORDS)
        names = (f"noise-{self.dataset}", f"noise-{self.dataset}-faithful")
        return [
            runs[name]
            for name in names
            if "targeted" in next(iter(runs[name].nets.values())).summary
        ]

    def _chosen(self, cells: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """The cells of at most ten images, a row each: one of every class before a second one."""
        by_image: dict[int, list[Mapping[str, Any]]] = {}
        for cell in cells:
            by_image.setdefault(cell["image"], []).append(cell)
        seen: Counter[int] = Counter()
        ranked: list[tuple[int, int, int]] = []
        for image in sorted(by_image):
            actual = by_image[image][0]["actual"]
            ranked.append((seen[actual], actual, image))
            seen[actual] += 1
        chosen = sorted(ranked)[:_MOST]
        rows = [by_image[image] for _, actual, image in sorted(chosen, key=lambda each: each[1:])]
        return [sorted(row, key=lambda cell: cell["target"]) for row in rows]

    def _pictures(
        self, method: str, rows: Sequence[Sequence[Mapping[str, Any]]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Originals [R, H, W, C] and what the attack made of them [R, K, H, W, C]."""
        if self.workdir is not None:
            clean = [self.workdir / "clean" / f"{row[0]['image']:05d}.png" for row in rows]
            made = [
                [attack_files.read_png(self.workdir / cell["file"]) for cell in row] for row in rows
            ]
            return np.stack([attack_files.read_png(file) for file in clean]), np.array(made)
        sheet = attack_files.read_png(ROOT / RECORDS / f"grid_{self.dataset}-{method}.png")
        images = [about["image"] for about in self._kept(method)["images"]]
        shape = (
            len(images),
            sheet.shape[0] // len(images),
            len(self.classes) + 1,
            -1,
            sheet.shape[2],
        )
        split = sheet.reshape(shape).swapaxes(1, 2)
        split = split[[images.index(row[0]["image"]) for row in rows]]
        return split[:, 0], split[:, 1:]


class Masks(Study):
    """Exercise 3: the faces, the net in training, and what it says of faces."""

    command = "python -m research.main --config=configs/masks.py:smoke"

    @property
    def caption(self) -> str:
        """The data, for figures."""
        return self._run["data"]["caption"]

    def sources(self) -> Text:
        """How many faces there are, by source and class, and where they went."""
        return Text(mask_tables.counts_table(self._runs[0]))

    def balance(self) -> Any:
        """Counts for `figures.masks.draw_balance`: faces to learn from, before and after copies."""
        about = self._run["data"]["about"]
        before, copies = about["splits"]["train"], about["copies"]
        after = {
            source: {label: n + copies.get(source, {}).get(label, 0) for label, n in counts.items()}
            for source, counts in before.items()
        }
        return Arguments(before=before, after=after)

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each epoch, for `figures.masks.draw_curves_with_stop`."""
        curves = self._run["curves"]
        return [
            {"epoch": epoch, **{key: curves[key][epoch - 1] for key in _CURVES}}
            for epoch in range(1, len(curves["test_loss"]) + 1)
        ]

    def reported_rows(self) -> list[dict[str, Any]]:
        """The same of the report's own log, its figure 16."""
        return drawings.rows_of(drawings.REPORTED_MASKS)

    def trends(self) -> Text:
        """What the report saw in training, and what this net did."""
        return Text(mask_tables.trends_table(self._runs[0]))

    def table(self) -> Text:
        """Accuracies on test and score faces, by source."""
        return Text(mask_tables.table(self._runs))

    def samples(self) -> Path:
        """A picture of faces to learn from, by source; of the records, drawn ones."""
        return self._figure("samples.png", "masks_samples.png")

    def scored(self) -> Path:
        """A picture of faces that the net has never seen, with its answers; as `samples`."""
        return self._figure("scored.png", "masks_scored.webp")

    def photograph(self) -> Any:
        """A drawn photograph with its faces marked, in the records only."""
        if self.workdir is None:
            return ROOT / RECORDS / "masks_drawn.webp"
        return Missing(
            "*`python -m research.predict --run=RUN --out=annotated photo.jpg` marks your own.*"
        )

    def confusion(self, split: str = "test") -> Any:
        """Counts for `figures.classifiers.draw_confusion`, all seeds together."""
        if not (stored := self._predictions(split)):
            return stored
        names = self._summary["names"]
        labels = stored["labels"]
        counts = [confusion(each.argmax(-1), labels, len(names)) for each in stored["logits"]]
        return Arguments(confusion=np.sum(counts, axis=0), classes=names)

    def roc(self, split: str = "test") -> Any:
        """Curves for `figures.masks.draw_roc`: the first class against the other, one a seed."""
        if not (stored := self._predictions(split)):
            return stored
        positive = stored["labels"] == 0
        if positive.all() or not positive.any():
            return Missing(f"*All {split} faces are of one kind.*")
        return {f"{split} faces": [roc(softmax(each)[:, 0], positive) for each in stored["logits"]]}

    def _fits(self, summary: Mapping[str, Any]) -> bool:
        return "epochs_trained" in summary

    def _origin(self) -> str:
        return (
            f"The report's net, {len(self._run['seeds'])} seeds. Data: {self.caption}. "
            f"Made by `{self._run['command']}`. The pictures are of drawn faces."
        )

    @property
    def _runs(self) -> list[run_directory.Run]:
        """The run, or the committed ones."""
        if self.workdir is not None:
            return [run_directory.load_run(self.workdir)]
        runs = published.read(ROOT / RECORDS)
        return [runs["masks-vgg"], runs["masks-best"]]

    @cached_property
    def _run(self) -> dict[str, Any]:
        """The record of the report's net, or the like of the run."""
        if self.workdir is None:
            return self._read("masks.json")["vgg"]
        rows = run_directory.rows(self.workdir)
        made = {"curves": {key: [row[key] for row in rows] for key in _CURVES}}
        made |= {"command": f"{self.workdir}", "packages": self._read("versions.json")["packages"]}
        return {**self._summary, **made}

    def _figure(self, of_run: str, of_records: str) -> Path:
        if self.workdir is None:
            return ROOT / RECORDS / of_records
        return self.workdir / "figures" / of_run

    def _predictions(self, split: str) -> Any:
        """{logits [S, N, K], labels [N]} of a run."""
        if self.workdir is None:
            return Missing("*The records hold no single predictions: set RUN to a run.*")
        with np.load(self.workdir / f"predictions_{split}.npz") as stored:
            return {name: stored[name] for name in stored.files}


def _decay(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """[S]: the factor by which the signal changes a hidden layer before the first step."""
    hidden = arrays["signal_abs_mean"][0, :, :-1].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (hidden[:, 0] / hidden[:, -1]) ** (1 / max(hidden.shape[1] - 1, 1))
