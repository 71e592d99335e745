"""Command lines: what is wrong is one line, and the exit code 2."""

from __future__ import annotations

import pytest
from absl import flags

from research.runtime import commands


@pytest.fixture
def values() -> flags.FlagValues:
    values = flags.FlagValues()
    _ = flags.DEFINE_bool("check", False, "", flag_values=values)
    _ = flags.DEFINE_string("place", "here", "", flag_values=values)
    _ = flags.DEFINE_list("nets", ["a", "b"], "", flag_values=values)
    _ = flags.DEFINE_multi_string("from", [], "", flag_values=values)
    _ = flags.DEFINE_integer("count", 3, "", flag_values=values)
    return values


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("check",), "unexpected argument 'check'; did you mean --check?"),
        (("--check", "x"), "unexpected argument 'x'; flags start with --"),
        (("--", "--check"), "unexpected argument '--check'; did you mean --check?"),
        (("--chek",), "Unknown command line flag 'chek'. Did you mean: check ?"),
        (("--count=many",), "flag --count=many: invalid literal for int() with base 10: 'many'"),
        (("--place=",), "--place: empty; give it a value, or leave it out"),
        (("--nets=",), "--nets: empty; give it a value, or leave it out"),
        (("--nets=a,",), "--nets: empty; give it a value, or leave it out"),
        (("--from=a", "--from="), "--from: empty; give it a value, or leave it out"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: tuple[str, ...],
    line: str,
    values: flags.FlagValues,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        _ = commands.parse(values, ["program", *words], "")
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err) == (2, "", f"error: {line}\n")


def test_words_are_returned_where_there_may_be_some_and_flags_are_set(
    values: flags.FlagValues,
) -> None:
    argv = ["program", "--count=0", "a.png", "--place=", "b.png", "--nocheck"]
    rest = commands.parse(values, argv, "", words=True, may_be_empty=("place",))
    assert rest == ["a.png", "b.png"]
    assert (values["count"].value, values["place"].value, values["nets"].value) == (0, "", [*"ab"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), ""),
        (("--place=there", "--from=x", "--nocheck"), ""),
        (("--place=there", "--check"), "--check and --place exclude each other"),
        (("--from=x",), "--from needs --place"),
    ],
)
def test_flags_that_exclude_or_need_another_say_so(
    words: tuple[str, ...],
    line: str,
    values: flags.FlagValues,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _ = commands.parse(values, ["program", *words], "")
    code = 0
    try:
        commands.check_together(values, ("check", "place"), {"from": "place"})
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert (code, bool(err)) == ((2, True) if line else (0, False))
    assert err.startswith(f"error: {line}" if line else "")


def test_help_is_of_these_flags_alone(
    values: flags.FlagValues, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _ = commands.parse(values, ["program", "--help", "x"], "What it does.")
    out, _ = capsys.readouterr()
    assert ended.value.code == 0
    assert out.startswith("What it does.") and "--[no]check" in out and "--flagfile" not in out
