"""Command lines: absl's flags, with every mistake reported in one line and exit code 2."""

import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags


def parse(
    values: flags.FlagValues,
    argv: Sequence[str],
    help_text: str,
    *,
    words: bool = False,
    may_be_empty: Sequence[str] = (),
) -> list[str]:
    """The words of a command line that are no flags; the flags are in `values` then.

    argv: with the name of the program.  words: whether there may be any: a word among flags is
    most likely one that lacks its dashes.  may_be_empty: flags that have a meaning without a value;
    of others "--flag=" is a shell variable that was not set.
    -h and --help print `help_text` with the flags, and end the process.
    """
    if {"-h", "--help"} & {*argv[1:]}:
        own = [name for name in values.flags_by_module_dict() if not name.startswith("absl.")]
        print(help_text.strip(), *map(values.module_help, own), sep="\n")
        sys.exit(0)
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        fail(str(error))
    if rest and not words:
        near = difflib.get_close_matches(rest[0], list(values), n=1)
        hint = f"did you mean --{near[0]}?" if near else "flags start with --"
        fail(f"unexpected argument {rest[0]!r}; {hint}")
    for name in values:
        given = values[name]
        empty = given.value in ("", []) or (isinstance(given.value, list) and "" in given.value)
        if given.present and empty and name not in may_be_empty:
            fail(f"--{name}: empty; give it a value, or leave it out")
    return rest


def check_together(values: flags.FlagValues, modes: Sequence[str], needs: dict[str, str]) -> None:
    """End the process if two of the flags `modes` are given, or one without what it `needs`."""
    given = [name for name in values if values[name].present and values[name].value]
    chosen = [f"--{name}" for name in modes if name in given]
    if len(chosen) > 1:
        fail(f"{' and '.join(chosen)} exclude each other; give one of them")
    for name, needed in needs.items():
        if name in given and needed not in given:
            fail(f"--{name} needs --{needed}; give both")


def fail(message: str) -> NoReturn:
    """End the process for a mistake of the user's: one line on standard error, exit code 2."""
    # It loads JAX, which makes a process large: the parent of a benchmark's contestants is not.
    from research.structs import printable

    print(printable(f"error: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(2)
