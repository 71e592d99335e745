"""The strict grammar of `--config=file.py:variant,switch`."""

import difflib
from collections.abc import Sequence

# Keys of configs that have a new name, old to new. A key that is a section, as "budget", stands for
# all that it holds: "budget.images" is "pgd.images".
RENAMED = {
    "look_every": "steps_per_dispatch",
    "budget": "pgd",
    "always": "extra_indices",
    "compare": "baselines",
    "deviation": "std",
    "faithful.deviation": "faithful.std",
}


def parse_variant(
    arg: str, variants: Sequence[str], switches: Sequence[str]
) -> tuple[str, set[str]]:
    """Split "variant,switch,..." into the variant and the set of switches.

    Raises ValueError, naming the nearest and listing the valid ones, for anything else.
    """
    first, *rest = arg.split(",")
    _check(first, variants, "variant")
    for switch in rest:
        _check(switch, switches, "switch")
    return first, set(rest)


def _check(word: str, valid: Sequence[str], kind: str) -> None:
    if word in valid:
        return
    near = difflib.get_close_matches(word, valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{kind} {word!r} is unknown; {hint}valid: {', '.join(valid)}")
