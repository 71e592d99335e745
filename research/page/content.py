"""What stands on the page, from the records in results/ and the judged ledger: plain data."""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from research.structs import UserError

Entry = Mapping[str, Any]

# Verdict: what stands for it besides its colour, and what it means.
VERDICTS: dict[str, tuple[str, str]] = {
    "REPRODUCED": ("✓", "holds as stated"),
    "TREND-ONLY": ("≈", "the order or shape holds, the number does not"),
    "CONTRADICTED": ("✕", "does not hold as stated"),
    "UNTESTABLE": ("?", "cannot be tested, and why"),
    "NOT RUN": ("○", "not run yet, with the command that would"),
}
KINDS = {
    "N": "number", "Q": "order or shape", "M": "mathematics", "C": "configuration",
    "X": "error in the text",
}  # fmt: skip
CLASSES = {
    "mnist": tuple("0123456789"),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}
METHODS = {
    "faithful": "as the report does it",
    "minimal": "the smallest noise we find",
}
# A reading of gradients.json, in the words of the page.
READINGS = {
    "kernel_abs_max": "largest |∂L/∂W| of all batches of the epoch",
    "kernel_abs_last": "largest |∂L/∂W| of the last batch",
    "layer_abs_max": "largest |∂L/∂W| with the biases",
    "kernel_signed_max": "largest signed ∂L/∂W",
    "signal_abs_max": "largest signal |∂L/∂z| that arrives at the layer",
}
PORTRAITS = ("masks_portrait.png", "masks_samples.png")
_PICTURE_PX, _QUALITY = 1200, 80  # of pictures in the page: the longer side, and WebP's quality


def records(root: Path) -> dict[str, Any]:
    """{name: content} of the records in results/ that the page is made from.

    Raises UserError naming a file that is missing or cannot be read.
    """
    found: dict[str, Any] = {}
    for name in ("depth", "gradients", "masks", "grids", "masks_pictures"):
        path = root / "results" / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            said = f"{path} cannot be read ({error}); make it: python -m research.report --collect"
            raise UserError(said) from error
    return found


def verdicts(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Each verdict with its sign, meaning and count, in the order of `VERDICTS`."""
    counts = Counter(entry["verdict"] for entry in entries)
    return [
        {"name": name, "slug": slug(name), "sign": sign, "meaning": meaning, "count": counts[name]}
        for name, (sign, meaning) in VERDICTS.items()
    ]


def ledger(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every claim as the page shows it: the entry, with its numbers in words and what is searched.

    Raises UserError for a verdict that there is none of.
    """
    shown: list[dict[str, Any]] = []
    for entry in entries:
        if entry["verdict"] not in VERDICTS:
            raise UserError(f"{entry['id']}: there is no verdict {entry['verdict']!r}")
        kinds = [KINDS[kind] for kind in entry["kind"].split("/")]
        searched = (entry["id"], entry["text"], entry["claimed"], entry["reason"], entry["config"])
        shown.append(
            {
                **entry,
                "slug": slug(entry["verdict"]),
                "sign": VERDICTS[entry["verdict"]][0],
                "kinds": ", ".join(kinds),
                "found": numbers(entry["ours"]),
                "rank": rank(entry["ours"]),
                "searched": " ".join([*searched, entry["section"], *kinds]).lower(),
                "hypotheses": [
                    {**each, "found": numbers(each["ours"])} for each in entry["hypotheses"]
                ],
            }
        )
    return shown


def numbers(ours: Mapping[str, Any] | None) -> str:
    """ "94.60 % (sd 0.66, 93.51 to 95.27, 20 values)", or "" where nothing was measured."""
    if ours is None:
        return ""
    unit = f" {ours['unit']}" if ours["unit"] else ""
    form = (lambda value: f"{value:.2f}") if unit else (lambda value: f"{value:.4g}")
    if ours["seeds"] < 2 or ours["sd"] is None:
        return f"{form(ours['mean'])}{unit} (1 value)"
    spread = f"sd {form(ours['sd'])}, {form(ours['min'])} to {form(ours['max'])}"
    return f"{form(ours['mean'])}{unit} ({spread}, {ours['seeds']} values)"


def rank(ours: Mapping[str, Any] | None) -> str:
    """Where the reported value lies among our values, in words; "" where that cannot be said."""
    if ours is None or ours["percentile"] is None or ours["seeds"] < 2:
        return ""
    share = ours["percentile"]
    if share in (0, 100):
        return f"{'above' if share else 'below'} all of our values"
    return f"{share:.0f} % of our values are at or below it"


def slug(verdict: str) -> str:
    """The verdict as the name of a CSS class."""
    return verdict.lower().replace(" ", "-")


def sections(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Sections in the order of the ledger, each with the counts of its verdicts."""
    names = list(dict.fromkeys(entry["section"] for entry in entries))
    return [
        {"name": name, "verdicts": verdicts([e for e in entries if e["section"] == name])}
        for name in names
    ]


def explorer(gradients: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the curves over depth: {"readings": ..., "nets": {net: {reading: [m, l, h]}}}.

    Of each reading the median, lowest and highest of the seeds, [epoch][layer], epoch 0 being the
    net before its first step.
    """
    readings = [
        reading for reading in READINGS if reading in next(iter(gradients["nets"].values()))
    ]
    return {
        "readings": {reading: READINGS[reading] for reading in readings},
        "nets": {
            net: {
                reading: [kept[reading][part] for part in ("median", "low", "high")]
                for reading in readings
            }
            for net, kept in gradients["nets"].items()
        },
    }


def grids(root: Path, kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The attacked images of each data set: one grid, with a sheet of pictures for each method.

    Raises UserError for a sheet that is missing, or not of the run that the numbers are of, and
    for methods that were not tried on the same images.
    """
    shown: list[dict[str, Any]] = []
    for dataset, classes in CLASSES.items():
        runs = [kept[name] for m in METHODS if (name := f"{dataset}-{m}") in kept]
        if not runs:
            continue
        if any(run["images"] != runs[0]["images"] for run in runs):
            raise UserError(f"grids.json: the methods on {dataset} have not the same images")
        tries = [
            {**run, "label": METHODS[run["method"]], "tally": tally(run),
             "sheet": _sheet(root / "results" / f"grid_{dataset}-{run['method']}.png", run)}
            for run in runs
        ]  # fmt: skip
        shown.append(
            {
                "dataset": dataset,
                "classes": classes,
                "images": runs[0]["images"],
                "which": _which(runs[0]["images"]),
                "tries": tries,
            }
        )
    return shown


def _which(images: Sequence[Mapping[str, int]]) -> str:
    if len(images) == 1:
        return f"test image {images[0]['image']}"
    return "the first test image of each class that the net has right"


def tally(run: Mapping[str, Any]) -> dict[str, int]:
    """How many cells were tried and won toward other classes, and how many left their own."""
    count: Counter[str] = Counter()
    for about, row in zip(run["images"], run["cells"], strict=True):
        for target, cell in enumerate(row):
            kind = "untargeted" if target == about["actual"] else "targeted"
            count[f"{kind}_tried"] += 1
            count[f"{kind}_won"] += bool(cell["success"])
    names = ("targeted_tried", "targeted_won", "untargeted_tried", "untargeted_won")
    return {name: count[name] for name in names}


def picture(root: Path, about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A picture of results/ for the page: its address as data, and its size in pixels.

    Raises UserError for a picture that is missing or is not the one that was recorded.
    """
    content = _checked(root / "results" / name, about.get(name, {}).get("sha256", ""))
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((_PICTURE_PX, _PICTURE_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=6)
    source = _address("image/webp", stream.getvalue())
    return {"source": source, "width": image.width, "height": image.height, **about[name]}


def _sheet(path: Path, run: Mapping[str, Any]) -> str:
    return _address("image/png", _checked(path, run["sheet_sha256"]))


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); collect its run again"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} is not of the run that its record is of; collect it again")
    return content


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
