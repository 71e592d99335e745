"""Faces with and without masks: from annotated photographs to a data set for training.

The way of a face, each form with the module that makes it:

annotations.py   `Face`: photograph, box, label, layout, read from XML, JSON or a class folder
ingest.py        `Row` and a PNG file: the face cut out, in a chunk file that survives a kill
dataset.py       `Example`: a record of the prepared TFDS data set, in its split, with its copies
dataset.py       `Faces`: the arrays of one split, pixels on the disk
structs.py       `Batch`: what a step of training sees

What cannot be used is a `Problem`, one line of problems.csv.  `splits.py` shares photographs out to
train, val and test; `detection.py` finds the faces of photographs without boxes; `drawing.py` draws
photographs for tests.
"""
