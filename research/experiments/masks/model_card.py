"""The model card of a trained mask classifier, in Markdown.

After M. Mitchell et al., "Model Cards for Model Reporting", 2019, as far as there is something to
say: every number comes from the summary of the run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from research.storage import run_directory

# By layout, whose data sets the report names; a directory may hold others.
LICENCES = {
    "voc": "Kaggle andrewmvd/face-mask-detection: CC0 1.0, as quoted by third parties",
    "json": "Humans in the Loop, Medical Mask Dataset: handed out on request, terms with the data",
    "folders": "Kaggle prithwirajmitra/covid-face-mask-detection-dataset: no licence stated",
}
_SETTINGS = (
    *("optimizer", "learning_rate", "schedule", "weight_decay", "label_smoothing", "batch_size"),
    *("epochs", "patience", "keep_best", "shift", "mirror", "precision", "head"),
    *("probability_floor", "filters", "pools", "dense", "widths", "residual", "shrink"),
)


def card(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The card of a run's net, of its first seed.

    summary: as summary.json of `experiments.masks`.  config: of the run, resolved.
    Names the packages of the process that calls this.
    """
    parts = (
        _head(summary, config),
        _use(summary, config),
        _data(summary, config),
        _photographs(summary),
        _accuracy(summary, config),
        _training(summary, config),
        _loading(config),
    )
    return "\n\n".join(parts) + "\n"


def _head(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    names = _listed(summary["names"])
    drawn = (
        "\n\n**Trained on drawings of faces, for tests of the code. It knows nothing of people.**"
        if config["data"]["drawn"]
        else ""
    )
    return (
        "---\nlibrary_name: flax\npipeline_tag: image-classification\n---\n\n"
        f"# {summary['net']}: {names}\n\n"
        f"Classifies a face, cut out of a photograph, as {names}. {summary['parameters']:,} "
        f"parameters; input {config['data']['size']} x {config['data']['size']} pixels RGB, 8 bits."
        f"{drawn}"
    )


def _use(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    sigmoid = (
        " The outputs are a sigmoid p each; the probability given is p / sum p."
        if config["net"] == "cnn" and config["head"] == "sigmoid"
        else ""
    )
    third = (
        "Masks worn incorrectly are a class of its own, with few examples: see its interval below."
        if "incorrect" in summary["names"]
        else "Masks worn incorrectly were left out: which class they get is not known."
    )
    small = max(config["data"]["min_side"], round(config["data"]["min_face_px"]))
    lines = (
        "Meant for the study of small nets, for teaching, to be tried on one's own photographs.",
        "**Not a safety device**, nor for admission, surveillance or any decision about a person. "
        "It does not tell whether a mask protects.",
        "The data are few, and their origin is unclear: photographs from the web, with labels that "
        "nobody has checked here.",
        "The classes come in part from different sources (portraits without, street scenes with a "
        "mask), so that a background or a camera can pass for a mask. The numbers by source below "
        "show it in part only.",
        "How it does on groups of people, by age, sex, skin or dress, is **not measured**; the "
        "data have no such labels.",
        f"Faces under {small} pixels are not looked for by the detector as it is set, and small "
        "faces hold little to tell by: half of those of the first data set are about 20 pixels "
        "wide.",
        f"{third}",
        "A probability is not calibrated." + sigmoid,
    )
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _data(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    data, about = summary["data"], summary["data"]["about"]
    names = summary["names"]
    rows = [
        [split, source, *(counts.get(name, 0) for name in names)]
        for split, sources in about["splits"].items()
        for source, counts in sources.items()
    ]
    rows += [
        ["train, augmented copies", source, *(counts.get(name, 0) for name in names)]
        for source, counts in about["copies"].items()
    ]
    left = [
        f"{count:,} {label} ({source})"
        for source, counts in about["left_out"].items()
        for label, count in sorted(counts.items())
    ]
    if "incorrect" not in names:
        left += [
            f"{counts['incorrect']:,} masks worn incorrectly ({source})"
            for source, counts in about["annotated"].items()
            if counts.get("incorrect")
        ]
    if about["too_small"]:
        side = config["data"]["min_side"]
        left.append(f"{about['too_small']:,} faces with a side under {side} pixels")
    sources = [source for source in LICENCES if source in about["annotated"]]
    licences = [f"- {source}: {LICENCES[source]}." for source in sources]
    notes = (
        ["", "Licences, if these are the data sets of the report:", "", *licences]
        if licences and not config["data"]["drawn"]
        else []
    )
    return "\n".join(
        [
            f"## Data\n\n{data['caption']}\n",
            _table(["split", "source", *names], rows),
            "",
            "Split by photograph: two faces of one, or a face and its copy, stand on one side. "
            f"{about['near_duplicates']:,} photographs look much like one of another split.",
            f"Left out: {'; '.join(left) or 'nothing'}. {about['problems']:,} problems with files "
            "are listed in problems.csv of the run.",
            *notes,
        ]
    )


def _photographs(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            *(detector, name, f"{cell['count']:,}", f"{cell['found']:,}"),
            *(f"{cell['share']:.2%}", _from_to(cell["interval"])),
        ]
        for detector, measured in summary["end_to_end"].items()
        for name, cell in measured["sources"]["all"].items()
    ]
    header = ["detector", "class", "annotated", "found", "found and right", "interval"]
    return (
        "## From photographs\n\nOf all annotated faces of the test photographs, what a detector "
        "finds and the net calls right. Intervals are Wilson's, 95 %, of the mean over the seeds."
        f"\n\n{_table(header, rows)}"
    )


def _accuracy(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    text = "## Accuracy\n\n"
    if config["final_epochs"]:
        text += (
            f"**After everything the net was trained for {config['final_epochs']} epochs on the "
            "validation faces. No figure on them holds for the net in this folder.** Those "
            "under `val` and `test` are of the net before. "
        )
    several = len(summary["seeds"]) > 1
    of = f"means over {len(summary['seeds'])} seeds; this is the first of them" if several else ""
    text += (
        f"Intervals are Wilson's, 95 %{', of the ' + of if of else ''}. Majority: the accuracy of "
        "always naming the largest class. The validation faces were watched while training"
        f"{_watched(config)}: they flatter, the test faces do not.\n\n"
    )
    groups = {split: summary[split] for split in ("val", "test")}
    if summary["final"]:
        groups["test, after the last epochs"] = summary["final"]["test"]
    rows = [
        [split, source, f"{g['count']:,}", *_shares(g)]
        for split, sources in groups.items()
        for source, g in sources.items()
    ]
    header = ["faces", "source", "count", "accuracy", "interval", "sd", "majority", "AUC"]
    recalls = [
        [split, name, f"{cell['count']:,}", f"{cell['share']:.2%}", _from_to(cell["interval"])]
        for split, sources in groups.items()
        if sources
        for name, cell in sources["all"]["classes"].items()
    ]
    by_class = _table(["faces", "class", "count", "recall", "interval"], recalls)
    return f"{text}{_table(header, rows)}\n\n{by_class}"


def _watched(config: Mapping[str, Any]) -> str:
    if config["keep_best"]:
        return ", and the epoch that is kept was chosen by them"
    return ", and their loss ended it" if config["patience"] else ""


def _from_to(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{low:.2%} - {high:.2%}"


def _shares(group: Mapping[str, Any]) -> list[str]:
    sd = "" if group["sd"] is None else f"{group['sd']:.2%}"
    area = "" if group["auc"] is None else f"{group['auc']:.4f}"
    return [
        f"{group['accuracy']:.2%}",
        _from_to(group["interval"]),
        sd,
        f"{group['majority']:.2%}",
        area,
    ]


def _training(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    settings = [f"`{key}` {_plain(config[key])}" for key in _SETTINGS if key in config]
    data = [
        f"`data.{key}` {_plain(config['data'][key])}"
        for key in ("size", "margin", "min_side", "min_face_px", "val", "test", "balance", "seed")
    ]
    versions = run_directory.describe_versions({})
    packages = ", ".join(f"{name} {version}" for name, version in versions["packages"].items())
    return (
        f"## Training\n\nSeeds {_plain(summary['seeds'])}; epochs "
        f"{_plain(summary['epochs_trained'])}, lowest validation loss after epoch "
        f"{_plain(summary['best_epoch'])}; {summary['seconds']:.0f} s on {summary['device']}.\n\n"
        f"{', '.join(settings)}; {', '.join(data)}. All of it: `config.json`.\n\n"
        f"Written with Python {versions['python']}, {packages}, code {versions['git_commit']}."
    )


def _loading(config: Mapping[str, Any]) -> str:
    size = config["data"]["size"]
    return (
        "## Loading\n\n"
        "- `model.jaxexport`: `jax.export.deserialize(open(file, 'rb').read()).call(images)`, "
        f"images [b, {size}, {size}, 3] uint8 to probabilities [b, K] float32; CPU, CUDA "
        "or TPU.\n"
        "- `model.safetensors`: the parameters; kernels [height, width, in, out] or [in, out].\n"
        "- `checkpoint/`: the same for Orbax, `StandardCheckpointer().restore(path)`.\n"
        "- `labels.json`: the classes in the order of the outputs.\n"
        "- `sha256sum -c SHA256SUMS` tells whether the files are as they were written."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _listed(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
