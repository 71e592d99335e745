"""Annotation files: what is said is read, in whatever form programs write it."""

from __future__ import annotations

import json

import pytest

from research.faces.annotation_files import Entry, Fault, parse_json, parse_voc

XML = (
    "<annotation><path>{path}</path><filename>a.png</filename><object><name>mask</name><bndbox>"
    "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"
)
ENTRY = Entry("mask", [1, 2, 3, 4], "")
HEAD = '<?xml version="1.0" encoding="{}"?>\n'


@pytest.mark.parametrize(
    "content",
    [
        XML.format(path="/a").encode(),
        f"<!DOCTYPE annotation>{XML}".encode(),
        f'<!DOCTYPE annotation SYSTEM "http://localhost/a.dtd">{XML}'.encode(),
        XML.replace("<annotation>", '<annotation xmlns="http://a/b" xmlns:x="c">').encode(),
        ("\ufeff" + HEAD.format("utf-8") + XML).encode(),
        (HEAD.format("utf-16") + XML).encode("utf-16"),
    ],
)
def test_what_is_well_formed_is_read_without_a_word(content: bytes) -> None:
    (annotation,) = parse_voc(content)
    assert annotation.entries == [ENTRY] and annotation.image == "a.png"
    assert list(annotation.remarks) == []


@pytest.mark.parametrize(
    "content",
    [
        XML.format(path="C:\\Bénédicte").encode("latin-1"),
        (HEAD.format("gb2312") + XML.format(path="口罩")).encode("gb2312"),
        (HEAD.format("no-such-code") + XML).encode(),
        XML.format(path="masks & faces").encode(),
        ("\n " + HEAD.format("utf-8") + XML).encode(),
    ],
)
def test_what_is_not_well_formed_is_read_with_a_line_where_it_is_clear(content: bytes) -> None:
    (annotation,) = parse_voc(content)
    assert annotation.entries == [ENTRY] and annotation.image == "a.png"
    ((what, done),) = annotation.remarks
    assert what.startswith("not well-formed XML (") and done == "read all the same"


@pytest.mark.parametrize("codec", ["zip", "hex", "unicode_escape", "idna", "punycode"])
def test_only_encodings_of_text_are_tried(codec: str) -> None:
    with pytest.raises(Fault, match="no XML that can be read"):
        parse_voc(HEAD.format(codec).encode() + b"\\u003cannotation/>")


@pytest.mark.parametrize("kind", ["rectangle", "polygon"])
def test_shapes_of_labelme_are_the_boxes_around_their_points(kind: str) -> None:
    points = [[3, 4.5], [1, 2]] if kind == "rectangle" else [[1, 3], [3, 4.5], [2, 2]]
    shapes = [
        {"label": "mask", "points": points, "shape_type": kind},
        {"label": "mask", "points": [[5, 5]], "shape_type": "point"},
    ]
    document = {"imagePath": "a.png", "shapes": shapes, "imageWidth": 60, "imageHeight": 40}
    (annotation,) = parse_json(json.dumps(document).encode())
    assert annotation.entries[0] == Entry("mask", [1, 2, 3, 4.5], "")
    assert "a list of four numbers" in annotation.entries[1].fault
    assert (annotation.image, annotation.size) == ("a.png", (60, 40))


def test_json_of_another_program_is_refused_with_what_it_holds() -> None:
    with pytest.raises(Fault, match=r"COCO or labelme; the file holds '_via_settings, regions'"):
        parse_json(b'{"_via_settings": {}, "regions": []}')
