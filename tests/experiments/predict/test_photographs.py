"""Which photographs are meant; no two copies have one name, and no copy that of a photograph."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.experiments.predict import photographs
from research.structs import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def copies(*given, out="out"):
    listed, _ = photographs.find_photographs(given, Path(out))
    return {each.path: each.copy for each in listed}


def test_folders_are_searched_in_order_without_what_is_hidden_or_no_picture(here):
    touch("f/b.PNG", "f/a.jpeg", "f/in/c.gif", "f/.hidden.png", "f/.git/d.png", "f/notes.txt")
    assert copies("f") == {
        "f/a.jpeg": "f/a.jpeg",
        "f/b.PNG": "f/b.PNG",
        "f/in/c.gif": "f/in/c.gif.png",
    }
    assert copies("f/.hidden.png", "f/notes.txt") == {
        "f/.hidden.png": ".hidden.png",
        "f/notes.txt": "notes.txt.png",
    }


def test_pictures_of_a_folder_are_known_by_their_content(here):
    touch("f/a.txt", "f/b.csv")
    Path("f/c.jfif").write_bytes(b"\xff\xd8\xff")
    Path("f/d").write_bytes(b"\0\0\0\x18ftypheic")
    assert list(copies("f")) == ["f/c.jfif", "f/d"]


def test_a_folder_keeps_its_name_however_it_is_written(here, monkeypatch):
    touch("f/g/a.png")
    monkeypatch.setenv("HOME", str(here))
    for word in ("f/g", "f/g/", "./f/../f/g", "~/f/g", str(here / "f/g")):
        assert list(copies(word).values()) == ["g/a.png"]
    monkeypatch.chdir("f/g")
    assert list(copies(".", out="../out").values()) == ["g/a.png"]
    assert list(copies("..", out="../out").values()) == ["f/g/a.png"]


def test_photographs_of_one_name_get_numbers(here):
    touch("x/p/a.png", "y/p/a.png", "a.png", "A.PNG", "y/a.png", "a.webp", "a.webp.png")
    given = ("x/p", "y/p", "a.png", "A.PNG", "y/a.png", "a.webp", "a.webp.png")
    assert list(copies(*given).values()) == [
        *("p/a.png", "p-2/a.png", "a.png", "A-2.PNG", "a-3.png", "a.webp.png", "a.webp-2.png")
    ]


def test_a_photograph_that_is_reached_twice_is_taken_once(here):
    touch("f/a.png", "f/b.png")
    os.symlink("a.png", "f/link.png")
    os.symlink(".", "f/loop")
    assert copies("f/b.png", "f", "f/a.png", "f") == {"f/b.png": "b.png", "f/a.png": "f/a.png"}


def test_results_figures_and_folders_keep_their_names_for_themselves(here):
    touch("faces.jsonl/a.png", "a-panels.png", "a.png", "f/x.gif.png/b.png", "f/x.gif")
    assert copies("faces.jsonl") == {"faces.jsonl/a.png": "faces-2.jsonl/a.png"}
    listed, _ = photographs.find_photographs(["a.png", "a-panels.png"], Path("out"))
    assert [(each.copy, each.panels) for each in listed] == [
        ("a.png", "a-panels.png"),
        ("a-panels-2.png", "a-panels-2-panels.png"),
    ]
    assert copies("f") == {"f/x.gif": "f/x.gif-2.png", "f/x.gif.png/b.png": "f/x.gif.png/b.png"}


def test_the_name_of_a_copy_is_not_too_long_for_a_disk(here):
    name = "é" * 120 + ".webp"
    touch(name)
    (copy,) = copies(name).values()
    assert len(os.fsencode(copy)) <= 200 and copy.endswith(".webp.png")


def test_earlier_copies_are_no_photographs(here):
    touch("f/a.png", "f/out/a.png", "f/output.png")
    assert list(copies("f", out="f/out")) == ["f/a.png", "f/output.png"]
    for word, out in (("f/a.png", "f"), ("f", "f"), ("f/out", "f"), ("f/a.png", ".")):
        with pytest.raises(UserError, match=f"{word} lies in the folder of the copies; give"):
            _ = photographs.find_photographs([word], Path(out))


def test_a_folder_without_pictures_is_a_problem(here):
    touch("f/notes.txt")
    listed, (problem,) = photographs.find_photographs(["f"], Path("out"))
    assert listed == [] and problem.file == "f" and "holds no picture (.png, .jpg" in problem.what


@given(st.lists(st.lists(st.sampled_from(["a", "A", "a.png", "a.gif", "a.gif.png"]), max_size=3)))
def test_no_two_copies_or_figures_ever_share_a_name_or_stand_in_the_way(paths):
    taken, names = set(), []
    for parts in paths:
        path = os.path.join(*parts, "a.gif")
        taken |= photographs._folders(iter([path]))
    for parts in paths:
        names.append(photographs._free(photographs._copy_of(os.path.join(*parts, "a.gif")), taken))
    kept = [Path(name.casefold()) for name in names]
    assert len(set(kept)) == len(kept)
    assert not {parent for path in kept for parent in path.parents} & set(kept)


def test_a_folder_for_the_results_is_made_or_taken_again_but_never_another(here):
    photographs.open_out(Path("new/out"))
    assert os.listdir("new/out") == []
    touch("new/out/faces.jsonl", "new/out/summary.json", "new/out/a.png")
    photographs.open_out(Path("new/out"))
    assert sorted(os.listdir("new/out")) == ["a.png", "faces.jsonl"]
    touch("mine/a.png")
    with pytest.raises(UserError, match=r"mine: is not empty and holds no earlier results.*--out"):
        photographs.open_out(Path("mine"))
    for wrong in ("mine/a.png", "mine/a.png/out"):
        with pytest.raises(UserError, match=r"cannot be used as --out \(Not a directory\)"):
            photographs.open_out(Path(wrong))
