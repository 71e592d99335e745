"""The ledger of the report's claims, and the documents whose numbers are generated from results/.

python -m research.report                         # results/ -> README.md, docs/; prints the ledger
python -m research.report --ledger                # prints the ledger and changes nothing
python -m research.report --run --budget=30m      # runs what the ledger lacks, cheapest first
python -m research.report --collect=runs/mlp/all  # run directories -> results/, then as the first
python -m research.report --check                 # fails if a document differs from results/
python -m research.report --html=report.html      # the ledger as one page to read
python -m research.report --verify=runs/mlp/all   # whether a run's files are what was written
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

try:
    from research.runtime import startup
except ModuleNotFoundError:
    sys.exit("error: start it from the repository's directory, as python -m research.report")

if __name__ == "__main__":
    startup.prepare()

from research.ledger import claims, documents, runs, text, verdicts
from research.ledger.trim import trim
from research.page import render as page
from research.runtime import commands, files
from research.storage.records import DIGESTS
from research.storage.run_directory import load_run, verify
from research.structs import UserError, printable

# Not in absl's global flags, which hold those of every command that a process imports.
_FLAGS = flags.FlagValues()
_COLLECT = flags.DEFINE_multi_string(
    "collect",
    [],
    "Run directory that is trimmed into results/; may be given several times.",
    flag_values=_FLAGS,
)
_CHECK = flags.DEFINE_bool(
    "check", False, "Change nothing; fail if a document is out of date.", flag_values=_FLAGS
)
_LEDGER = flags.DEFINE_bool(
    "ledger", False, "Print the ledger and change nothing.", flag_values=_FLAGS
)
_FROM = flags.DEFINE_multi_string(
    "from",
    [],
    "With --ledger: run directory that is judged in the place of that in results/.",
    flag_values=_FLAGS,
)
_JSON = flags.DEFINE_bool("json", False, "With --ledger: print it as JSON.", flag_values=_FLAGS)
_RUN = flags.DEFINE_bool(
    "run", False, "Run what the ledger lacks, and trim it into results/.", flag_values=_FLAGS
)
_BUDGET = flags.DEFINE_string(
    "budget", "", "With --run: time, as 30m or 2h; no run begins beyond.", flag_values=_FLAGS
)
_DATA = flags.DEFINE_multi_string(
    "data",
    [],
    "With --run: NAME=DIR of a data set (mnist, cifar10, voc, folders).",
    flag_values=_FLAGS,
)
_HTML = flags.DEFINE_string(
    "html", None, "Write the ledger as one self-contained page, and stop.", flag_values=_FLAGS
)
_VERIFY = flags.DEFINE_multi_string(
    "verify",
    [],
    "Run directory whose files are compared with what was written; changes nothing.",
    flag_values=_FLAGS,
)
_MODES = ("run", "ledger", "html", "collect", "check", "verify")
_NEEDS = {"from": "ledger", "json": "ledger", "budget": "run", "data": "run"}

ROOT = Path(__file__).parents[1]


def main(argv: Sequence[str]) -> int:
    """The door: flags to exit code."""
    _ = commands.parse(_FLAGS, argv, __doc__ or "")
    commands.check_together(_FLAGS, _MODES, _NEEDS)
    logging.set_verbosity(logging.WARNING)
    try:
        return _act()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _act() -> int:
    if _VERIFY.value:
        return _verify([files.locate(directory) for directory in _VERIFY.value])
    if not (ROOT / "results").is_dir():
        raise UserError(
            f"{ROOT / 'results'} is missing: the ledger is judged by the runs in it, which an "
            "installed package does not have; start python -m research.report in a clone of the "
            "repository"
        )
    if _RUN.value:
        book = claims.read()
        return runs.execute(
            book,
            ROOT / "results",
            Path("runs/ledger"),
            budget=runs.budget_seconds(_BUDGET.value),
            data=runs.data_directories(_DATA.value, book),
        )
    if _LEDGER.value:
        entries = verdicts.judged(ROOT, [files.locate(directory) for directory in _FROM.value])
        print(verdicts.to_json(entries) if _JSON.value else text.terminal(entries))
        return 0
    if _HTML.value is not None:
        page.write(files.locate(_HTML.value), ROOT)
        print(printable(f"the page is in {_HTML.value}; open it in a browser"), file=sys.stderr)
        return 0
    for directory in _COLLECT.value:
        name = trim(load_run(files.locate(directory)), ROOT / "results")
        print(printable(f"{directory} is in results/{name}"), file=sys.stderr)
    stale = documents.stale_documents(ROOT)
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    if _CHECK.value:
        if stale:
            print(
                f"error: {names} differs from results/; run python -m research.report",
                file=sys.stderr,
            )
            return 1
        print("every document agrees with results/", file=sys.stderr)
        return 0
    for path, content in stale.items():
        _ = path.write_text(content)
    print(text.terminal(verdicts.judged(ROOT)))
    print(f"made anew: {names or 'nothing, all agrees with results/'}", file=sys.stderr)
    return 0


def _verify(paths: Sequence[Path]) -> int:
    """Print the faults of some runs, a line each; the exit code, 1 if there are any."""
    faults = {path: verify(path) for path in paths}
    for path, lines in faults.items():
        for line in lines:
            print(printable(f"error: {line}"), file=sys.stderr)
        if not lines:
            finished = (path / DIGESTS).exists()
            state = "what was written" if finished else "whole, of a run that is not finished"
            print(printable(f"{path}: all files are {state}"), file=sys.stderr)
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
