"""Helpers of the notebooks: a run in the form that `research.figures` draws, shown in a cell.

A notebook defines nothing. It loads a run, draws with `research.figures`, and what stands last in a
cell is shown: `Text` and `Picture` say by themselves how, in Jupyter or elsewhere. What a run does
not hold is `Missing`, a sentence in the place of data, which `drawn` shows instead of a figure, so
that a notebook always runs to its end.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from research.data.datasets import CLASSES
from research.figures.masks import add_copies
from research.ledger import text, verdicts
from research.ledger.published import command
from research.ledger.tables import depth
from research.page import content, drawings
from research.runtime import files
from research.storage import attack_files
from research.storage.run_directory import Run, load_run
from research.structs import UserError
from research.training import scores

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"

_DPI, _SHOWN_DPI = 160, 100  # of the pixels, and of the size at which a notebook shows them
_LEVELS = 255
_MOST_NETS = 7  # lines that are told apart


@dataclass(frozen=True, repr=False)
class Text:
    """Markdown that a notebook shows as such."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __repr__(self) -> str:
        return self.markdown


@dataclass(frozen=True, repr=False)
class Missing(Text):
    """A message in place of missing content: the reason, and the remedy."""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, repr=False)
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
    """Keyword arguments of a function of `research.figures`, made from a run."""


def drawn(draw: Callable[..., Figure], data: Any, **settings: Any) -> Picture | Missing:
    """The figure `draw(data, **settings)` as a picture, or why there is none.

    data: the first argument, or `Arguments` in its place, or `Missing`.
    """
    if isinstance(data, Missing):
        return data
    given = isinstance(data, Arguments)
    figure = draw(**data, **settings) if given else draw(data, **settings)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=_DPI, format="png")
    words = settings.get("title", "a figure")
    return Picture(stream.getvalue(), round(_SHOWN_DPI * figure.get_figwidth()), words)


def picture(path: Path, words: str) -> Picture:
    """A picture file, at most as wide as a page; words: what it shows."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((1400, 2800), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Picture(stream.getvalue(), min(image.width, 720), words)


def load(place: str, experiment: str) -> Run:
    """The finished run in a directory, absolute or below the root of the repository.

    Raises UserError if there is none, or if it is of another experiment.
    """
    run = load_run(ROOT / files.locate(place))
    if run.experiment != experiment:
        raise UserError(
            f"{place} is a run of {run.experiment!r}, expected one of {experiment!r}; the notebook "
            "says which command makes one"
        )
    return run


def figure(run: Run, name: str, otherwise: str) -> Path:
    """figures/<name>.png of a run, or of the run in results/`otherwise` where it has none."""
    try:
        return run.figure(name)
    except UserError:
        return load_run(RESULTS / otherwise).figure(name)


class Ledger:
    """The claims of the report, judged by a run as far as it may judge, else by results/."""

    def __init__(self, run: Run) -> None:
        self._run, self._refused = run, ""
        self._committed = run.path.parent == RESULTS
        try:
            self.entries = verdicts.judged(ROOT, () if self._committed else [run.path])
        except UserError as error:
            self.entries, self._refused = verdicts.judged(ROOT), str(error)

    @property
    def about(self) -> Text:
        """The run that the numbers come from, and the runs that judge the claims."""
        run, origin, place = self._run, "", self._run.path
        if self._committed:
            origin, place = f" Made by `{command(run)}`.", place.relative_to(ROOT)
        judged_by = "this run, as far as it may, else by the committed runs"
        if self._refused:
            judged_by = f"the committed runs, for {self._refused}"
        return Text(
            f"The run in `{place}`: {', '.join(run.nets)}. Data: {run.caption}.{origin}\n\n"
            f"The claims below are judged by {judged_by}."
        )

    def claims(self, part: str, *ids: str) -> Text:
        """The rows of the ledger of one part of the report, "1A" to "3": those named, or all."""
        return Text(text.section([e for e in self.entries if not ids or e["id"] in ids], part))

    def against(self, part: str) -> Text:
        """The rows of a part that do not hold, or not as they are stated."""
        kept = [e for e in self.entries if e["verdict"] in ("CONTRADICTED", "TREND-ONLY")]
        return Text(text.section(kept, part))

    def counts(self, *parts: str) -> Text:
        """Numbers of claims of these parts by verdict."""
        table = verdicts.counts(self.entries)
        total: Counter[str] = Counter()
        for part in parts:
            total.update(table[part])
        return Text(", ".join(f"{count} {name}" for name, count in total.items() if count))


def accuracies(run: Run) -> dict[str, list[float]]:
    """Test accuracy of every net of a depth study, {"tanh-40": [S]}, as fractions."""
    return {net: np.atleast_1d(p.summary["test_accuracy"]).tolist() for net, p in run.nets.items()}


def gradients(
    run: Run, activations: Sequence[str], *depths: int, statistic: str = "kernel_abs_max"
) -> Any:
    """Gradients by layer for `figures.depth`, {"tanh-40": record}."""
    names = [f"{name}-{depth}" for depth in depths for name in activations]
    records = {
        net: drawings.gradients(run.nets[net], statistic) for net in names if net in run.nets
    }
    kept = {net: record for net, record in records.items() if record}
    return kept or Missing(f"*This run has no gradients of {', '.join(names)}.*")


def curves(run: Run, activations: Sequence[str], *depths: int) -> Any:
    """Metrics over the epochs for `figures.curves.draw_learning_curves`, {"tanh-40": columns}."""
    names = [f"{name}-{depth}" for depth in depths for name in activations]
    kept = {net: drawings.curves(run.nets[net]) for net in names if net in run.nets}
    return kept or Missing(f"*This run has none of the nets {', '.join(names)}.*")


def decays(run: Run) -> Text:
    """By what factor the signal changes a hidden layer before the first step, by net."""
    lines = ["| net | factor a layer | over all hidden layers |", "|---|---:|---:|"]
    for net, part in run.nets.items():
        factor = float(np.mean(depth.gradients(part)["signal_decay"]))
        steps = int(net.partition("-")[2]) - 1
        lines.append(f"| {net} | {factor:.3f} | {factor**steps:.1e} |")
    return Text("\n".join(lines))


def attack(run: Run, method: str) -> Run:
    """The run if its images were attacked by that method, else the committed one of some images.

    method: "faithful", the report's, or "minimal", ours.
    """
    if run.summary["method"] == method and any("file" in cell for cell in run.cells):
        return run
    return load_run(RESULTS / f"grid-{run.config['dataset']}-{method}")


def grid(run: Run) -> Arguments:
    """Pictures and numbers for `figures.noise.draw_grid`: of some images, all classes first."""
    rows = content.attack_rows(run)
    numbers = ("predicted", "probability", "success")
    return Arguments(
        clean=np.stack([run.clean(row[0]["image"]) for row in rows]),
        adversarial=np.array([[run.adversarial(cell) for cell in row] for row in rows]),
        actual=[row[0]["actual"] for row in rows],
        classes=CLASSES[run.config["dataset"]],
        **{name: [[cell[name] for cell in row] for row in rows] for name in numbers},
    )


def examples(run: Run, count: int = 4) -> Any:
    """Pictures for `figures.noise.draw_noise`: targeted successes, spread over their L2 norms."""
    cells = [cell for row in content.attack_rows(run) for cell in row]
    chosen, classes = attack_files.targeted_examples(cells, count), CLASSES[run.config["dataset"]]
    if not chosen:
        return Missing("*No targeted attack of this run succeeded.*")
    return Arguments(
        clean=np.stack([run.clean(cell["image"]) for cell in chosen]),
        adversarial=np.stack([run.adversarial(cell) for cell in chosen]),
        titles=[
            f"{classes[cell['actual']]} to {classes[cell['target']]}, L2 {cell['l2']:.2f}"
            for cell in chosen
        ],
    )


def norms(run: Run) -> Arguments:
    """Columns of the cells for `figures.noise.draw_distributions`."""
    names = ("steps", "l2", "linf", "l0", "success")
    columns = {name: np.array([cell[name] for cell in run.cells]) for name in names}
    own = np.array([cell["actual"] == cell["target"] for cell in run.cells])
    return Arguments(**{**columns, "linf": _LEVELS * columns["linf"]}, untargeted=own)


def matrix(run: Run) -> Arguments:
    """Counts for `figures.noise.draw_success`, of the first net."""
    net = next(iter(run.nets.values()))
    return Arguments(**net.summary["success_matrix"], classes=CLASSES[run.config["dataset"]])


def robust(run: Run) -> Any:
    """Counts for `figures.noise.draw_robust_accuracy`, of the first nets."""
    measured = run.summary.get("robust_accuracy")
    if not measured:
        return Missing("*There is no robust accuracy: `--config.pgd.images=200` measures it.*")
    hits = dict(list(measured["hits"].items())[:_MOST_NETS])
    unit = "Linf, levels of 8 bits" if measured["norm"] == "linf" else "L2, times 255"
    return Arguments(budgets=measured["levels"], hits=hits, count=measured["count"], unit=unit)


def transfer(run: Run) -> Any:
    """Rates for `figures.noise.draw_transfer`, of a run of several nets."""
    measured = run.summary.get("transfer")
    if not measured:
        return Missing("*One net alone: nothing can transfer. `--config.baselines` names others.*")
    rates = np.array(measured["rates"], np.float64)  # None is NaN
    return Arguments(rates=rates, names=measured["names"], counts=measured["counts"])


def balance(run: Run) -> Arguments:
    """Counts for `figures.masks.draw_balance`: faces to learn from, before and after copies."""
    about = run.versions["data"]["about"]
    before = about["splits"]["train"]
    return Arguments(before=before, after=add_copies(before, about["copies"]))


def confusion(run: Run, split: str) -> Any:
    """Counts for `figures.classifiers.draw_confusion`, all seeds together."""
    predictions = run.predictions(split)
    if not predictions:
        return _no_predictions(split)
    names, labels = run.summary["names"], predictions["labels"]
    counts = [scores.confusion(z.argmax(-1), labels, len(names)) for z in predictions["logits"]]
    return Arguments(confusion=np.sum(counts, axis=0), classes=names)


def roc(run: Run, split: str) -> Any:
    """Curves for `figures.masks.draw_roc`: the first class against the other, one a seed."""
    predictions = run.predictions(split)
    if not predictions:
        return _no_predictions(split)
    positive = predictions["labels"] == 0
    if positive.all() or not positive.any():
        return Missing(f"*All {split} faces are of one kind.*")
    logits = predictions["logits"]
    return {f"{split} faces": [scores.roc(scores.softmax(z)[:, 0], positive) for z in logits]}


def _no_predictions(split: str) -> Missing:
    return Missing(
        f"*This run keeps no single predictions of the {split} faces: set RUN to a run of yours.*"
    )
