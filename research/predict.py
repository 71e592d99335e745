"""Mark who wears a mask: python -m research.predict --run=runs/masks/vgg --out=annotated photo.jpg

Finds the faces in photographs (PNG, JPEG, WebP, BMP, GIF), classifies each by a net that
configs/masks.py has trained, and writes into the folder --out a copy of every photograph with
boxes, classes and probabilities, faces.jsonl with one line for each face, and summary.json. Give
files, folders (searched with everything below, but for hidden files), or both; what is a picture is
decided by its content. The photographs themselves are never changed. They are turned as their EXIF
entry says; a face that is tilted by 45 degrees or more after that is not found. The summary is
printed to standard output as one line of JSON; everything else goes to standard error. The exit
code is 2 if no photograph could be read or the net cannot be used.

A probability is the softmax of the net's outputs; for the net with sigmoid outputs p (vgg) that is
p / sum p, as in its training.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

try:
    from research.runtime import startup
except ModuleNotFoundError:
    sys.exit("error: start it from the repository's directory, as python -m research.predict")

if __name__ == "__main__":
    startup.prepare()

from research.experiments.predict import annotate
from research.faces import detectors
from research.runtime import commands, files, preemption, sharding
from research.storage import export
from research.structs import UserError, printable

# Not in absl's global flags, which hold those of every command that a process imports.
_FLAGS = flags.FlagValues()
_RUN = flags.DEFINE_string(
    "run", None, "Directory of a run of configs/masks.py, or its folder export.", flag_values=_FLAGS
)
_OUT = flags.DEFINE_string(
    "out", "annotated", "Folder for everything that is written.", flag_values=_FLAGS
)
_MIN_FACE_PX = flags.DEFINE_float(
    *("min_face_px", None, "Side of the smallest faces looked for, in pixels; default as the run."),
    flag_values=_FLAGS,
)
_DETECTOR = flags.DEFINE_enum(
    *("detector", "centerface", list(detectors.KINDS), "What finds the faces."),
    flag_values=_FLAGS,
)
_PANELS = flags.DEFINE_bool(
    *("figures", False, "Draw original, faces and answers beside each other, a figure for each."),
    flag_values=_FLAGS,
)
_CACHE = flags.DEFINE_string(
    *("compilation_cache", "runs/.compiled", 'Where compiled programs are kept; "" for nowhere.'),
    flag_values=_FLAGS,
)

_TRAIN = "python -m research.main --config=configs/masks.py:best --config.data.voc=DIR"


def parse_flags(argv: Sequence[str]) -> list[str]:
    """The photographs and folders named.  A mistake ends the process with one line."""
    given = commands.parse(
        _FLAGS, argv, __doc__ or "", words=True, may_be_empty=("compilation_cache",)
    )
    if not _RUN.value:
        commands.fail(f"no --run given{_known_runs()}; a net is trained by {_TRAIN}")
    if not given:
        commands.fail("no photograph given; name files or folders after the flags")
    return given


def find_export(run: Path) -> Path:
    """The export of a run directory, or the folder itself if it is one.

    Raises UserError, with the command that makes one, if there is none.
    """
    for folder in (run, run / "export"):
        if (folder / export.WEIGHTS).exists():
            return folder
    if (run / "config.json").exists():
        raise UserError(
            f"{run}: this run has not ended and has exported no net yet; give the command that "
            "began it once more"
        )
    raise UserError(f"{run}: holds no trained net{_known_runs()}; train one: {_TRAIN}")


def _known_runs() -> str:
    """The trained nets below runs/, as part of an error message."""
    exports = sorted(
        str(path.parents[1]) for path in Path("runs").glob(f"*/*/export/{export.WEIGHTS}")
    )
    return f" (there is {', '.join(exports[:3])})" if exports else ""


def predict(run: Path, given: Sequence[str], out: Path) -> dict[str, Any]:
    """Annotate the photographs `given` with the settings of the flags, see `annotate.run`.

    Raises UserError as that does, and if `run` holds no net of configs/masks.py.
    """
    exported = export.load(find_export(run))
    try:
        min_face_px = float(exported.config["data"]["min_face_px"])
        precision = str(exported.config["matmul_precision"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: its config is none of configs/masks.py ({error!r})") from None
    sharding.configure(cpu_devices=1, cpu_threads=0, seeds=1, matmul_precision=precision)
    if _CACHE.value:
        sharding.cache_programs(_CACHE.value)
    if _MIN_FACE_PX.value is not None:
        min_face_px = _MIN_FACE_PX.value
    return annotate.run(
        exported,
        given,
        out,
        detector=_DETECTOR.value,
        min_face_px=min_face_px,
        panels=_PANELS.value,
    )


def main(argv: Sequence[str]) -> int:
    """Annotate the photographs of the command line.  Returns the exit code."""
    given = parse_flags(argv)
    logging.set_verbosity(logging.FATAL)  # Orbax logs the traces of what it also raises
    out = Path(_OUT.value)
    try:
        out = files.locate(_OUT.value)
        if files.stored(out):
            raise UserError(f"--out: {out}: expected a folder on a disk")
        preemption.install(printable(f"what was done lies in {out}"))
        summary = predict(files.locate(_RUN.value or ""), given, out)
    except (UserError, OSError) as error:  # OSError: a full disk, a directory without permission
        print(f"error: {error}", file=sys.stderr)
        return 2
    except preemption.Stopped as stopped:
        print(printable(f"{stopped}; what was done lies in {out}"), file=sys.stderr)
        return stopped.exit_code
    print(json.dumps(summary), flush=True)
    print(printable(f"{summary['headline']}; results in {out}"), file=sys.stderr)
    return 0 if summary["photographs"] else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
