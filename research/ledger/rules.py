"""The rules of claims.toml: whether a number, an order or a shape holds, as functions of arrays.

Samples are [S] float64, one number a seed, in percent where the claim is; tables of medians are
[epoch, layer].  See the head of research/ledger/claims.toml for what each rule says and why.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Samples = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of checking one part of a claim.

    text: its numbers in words.  held, of: how many of its comparisons hold, and how many there are.
    order: whether it is about an order or a shape.
    """

    text: str
    held: int
    of: int
    order: bool

    @property
    def holds(self) -> bool:
        """Whether every comparison holds."""
        return self.held == self.of


def verdict(parts: Sequence[Outcome]) -> str:
    """REPRODUCED, TREND-ONLY or CONTRADICTED, from the parts of a claim."""
    if all(part.holds for part in parts):
        return "REPRODUCED"
    orders = [part for part in parts if part.order]
    held, count = sum(part.held for part in orders), sum(part.of for part in orders)
    return "TREND-ONLY" if 2 * held > count else "CONTRADICTED"


def over_readings(verdicts: Sequence[str]) -> str:
    """The verdict on an ambiguous claim, from those on each number that it may be about."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "TREND-ONLY"  # some reading of it is better than contradicted


def with_stand_in(verdict: str) -> str:
    """The verdict on a stand-in for the report's data, which can support at most the trend."""
    return "TREND-ONLY" if verdict in ("REPRODUCED", "TREND-ONLY") else "UNTESTABLE"


def check(rule: str, of: Samples, settings: Mapping[str, Any], *, order: bool) -> Outcome:
    """Check one rule.  settings: its keys, with the samples of `than` and `among`."""
    return _RULES[rule](of, settings, order)


def clearly_above(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a [S] is above b: by more than two standard errors of the mean difference.

    As many numbers are differences seed by seed, unequally many are two groups.  A single number is
    above another if it is larger.
    """
    difference = a.mean() - b.mean()
    if len(a) == len(b):
        error = _standard_error(a - b)
    else:
        error = np.hypot(_standard_error(a), _standard_error(b))
    return bool(difference > 2 * error)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _value(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    (values,) = of
    low, high = settings["is"] - settings["digit"] / 2, settings["is"] + settings["digit"]
    mean = values.mean()
    if len(values) > 1:
        spread = 2 * values.std(ddof=1)
    elif "images" in settings:
        spread = 2 * np.sqrt(mean * (100 - mean) / settings["images"])
    else:
        spread = 0.0
    inside = (values.min() < high and values.max() >= low) or (
        mean - spread < high and mean + spread >= low
    )
    return Outcome(f"{_spread(values)}, the report {settings['is']:g}", int(inside), 1, order)


def _includes(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    (values,) = of
    times = int((values == settings["is"]).sum())
    text = f"{settings['is']:g} in {times} of {len(values)}"
    return Outcome(text, int(times > 0), 1, order)


def _at_most(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    return _bounded(of, settings, order, sign=1)


def _at_least(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    return _bounded(of, settings, order, sign=-1)


def _bounded(of: Samples, settings: Mapping[str, Any], order: bool, *, sign: int) -> Outcome:
    every, bound = settings.get("every", False), settings["bound"]
    measure = (np.max if sign > 0 else np.min) if every else np.mean
    measured = [float(measure(values)) for values in of]
    word = ("highest" if sign > 0 else "lowest") if every else "mean"
    side = "most" if sign > 0 else "least"
    held = sum(sign * value <= sign * bound for value in measured)
    return Outcome(f"{word} {_listed(measured)}, at {side} {bound:g}", held, len(measured), order)


def _above(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    pairs = [(a, b) for a in of for b in settings["than"]]
    return _compared(pairs, "above", order)


def _rising(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    del settings
    pairs = [(after, before) for before, after in itertools.pairwise(of)]
    outcome = _compared(pairs, "above", order)
    return dataclasses.replace(
        outcome, text=f"{_arrows(of)}, {outcome.held} of {outcome.of} steps up"
    )


def _falling(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    del settings
    pairs = list(itertools.pairwise(of))
    outcome = _compared(pairs, "above", order)
    return dataclasses.replace(
        outcome, text=f"{_arrows(of)}, {outcome.held} of {outcome.of} steps down"
    )


def _best(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    first = max((*of, *settings["among"]), key=lambda values: values.mean())
    reach = [bool(values.max() >= first.min()) for values in of]
    text = f"{_listed(values.mean() for values in of)}, the best mean {_number(first.mean())}"
    word = "reach" if all(reach) else "do not all reach"
    return Outcome(f"{text}, whose seeds they {word}", int(all(reach)), 1, order)


def _level(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    a, b = of
    difference = float(a.mean() - b.mean())
    text = f"{_number(a.mean())} and {_number(b.mean())}, apart {abs(difference):.3g}"
    return Outcome(
        f"{text}, at most {settings['within']:g}",
        int(abs(difference) <= settings["within"]),
        1,
        order,
    )


def _usually(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    (values,) = of
    times = int((values == settings["is"]).sum())
    middle = f"median {_number(float(np.median(values)))}"
    text = f"{settings['is']:g} in {times} of {len(values)} seeds, {middle}"
    return Outcome(text, int(2 * times > len(values)), 1, order)


def _mostly_above(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    (a,), (b,) = of, settings["than"]
    share = float((_rows(a, settings) > _rows(b, settings)).mean())
    return Outcome(
        f"larger in {100 * share:.0f} % of layers and epochs", int(share > 0.5), 1, order
    )


def _mostly_falling(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    rows = _rows(of[0], settings)
    share = float((rows[-1] < rows[0]).mean())
    return Outcome(f"lower in {100 * share:.0f} % of layers", int(share > 0.5), 1, order)


def _more_above(of: Samples, settings: Mapping[str, Any], order: bool) -> Outcome:
    ratios: list[float] = []
    for pair in (of, settings["than"]):
        upper, lower = (_rows(table, settings) for table in pair)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(float(np.nanmedian(upper / lower)))
    text = f"median ratio {_number(ratios[0])} against {_number(ratios[1])}"
    return Outcome(text, int(ratios[0] > ratios[1]), 1, order)


def _compared(pairs: Sequence[tuple[np.ndarray, np.ndarray]], word: str, order: bool) -> Outcome:
    held = [clearly_above(a, b) for a, b in pairs]
    text = ", ".join(
        f"{_number(a.mean())} {word if yes else f'not clearly {word}'} {_number(b.mean())}"
        for (a, b), yes in zip(pairs, held, strict=True)
    )
    return Outcome(text, sum(held), len(held), order)


def _rows(table: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    first, last = settings.get("rows", (0, len(table) - 1))
    return table[first : last + 1]


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return _number(values[0])
    return (
        f"{_number(values.mean())} (sd {_number(values.std(ddof=1))}, "
        f"{_number(values.min())} to {_number(values.max())})"
    )


def _arrows(of: Samples) -> str:
    return " -> ".join(_number(values.mean()) for values in of)


def _listed(values: Any) -> str:
    return ", ".join(_number(value) for value in values)


def _number(value: float) -> str:
    """Two decimals of what is counted in percent, three digits of what is smaller."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


_RULES: dict[str, Callable[[Samples, Mapping[str, Any], bool], Outcome]] = {
    "value": _value,
    "includes": _includes,
    "at_most": _at_most,
    "at_least": _at_least,
    "above": _above,
    "rising": _rising,
    "falling": _falling,
    "best": _best,
    "level": _level,
    "usually": _usually,
    "mostly_above": _mostly_above,
    "mostly_falling": _mostly_falling,
    "more_above": _more_above,
}
