"""Faces with and without masks: from annotated photographs to a data set for training.

The forms of a face from an annotation file to a batch, each with the module that makes it:

annotation_files.py   `Annotation`: what an XML or JSON file says of one picture
annotations.py   `Face`: `Photograph`, box, label and layout, from such a file or a class folder
ingest.py        a crop: a PNG file beside its `Face`, in a `Chunk` file that survives a kill
dataset.py       `Example`: a record of the prepared TFDS data set, in its split, or a copy there
dataset.py       `Faces`: the arrays of one split, pixels on the disk
structs.py       `Batch`: what a step of training sees

The header of a photograph is read once, and its bytes are hashed once at most: its size and digest
belong to its `Photograph`, which goes with the face through all forms before `Faces`.

What cannot be used is a `Problem`, one line of problems.csv.  `splits.py` shares photographs out to
train, val and test; `detection.py` finds the faces of photographs without boxes; `drawing.py` draws
photographs for tests.
"""
