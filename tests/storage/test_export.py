"""What is exported comes back, bit for bit, or not at all."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import object_store
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import tiny_masks as tiny
from safetensors import safe_open

from configs.masks import get_config
from research.experiments.classifiers import make_model
from research.storage import export, records
from research.structs import UserError

FILES = (export.CONFIG, export.LABELS, export.ORIGIN, export.WEIGHTS, export.PROGRAM)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "export"
    return folder, *tiny.write(folder)


@pytest.fixture
def copy(tmp_path, written):
    folder = tmp_path / "export"
    folder.mkdir()
    for name in (*FILES, export.DIGESTS):
        (folder / name).write_bytes((written[0] / name).read_bytes())
    return folder


def images(count):
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(count).integers(0, 256, shape, np.uint8)


def logits_of(model, params, count):
    apply = jax.jit(model.apply)
    return np.asarray(apply({"params": params}, images(count).astype(np.float32) / 255))


def test_what_is_read_is_what_was_written_to_the_bit(written):
    folder, _, params, config = written
    exported = export.load(folder)
    chex.assert_trees_all_equal(exported.params, params)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(exported.params))
    assert (exported.config, exported.labels) == (config, tiny.LABELS)
    digest = hashlib.sha256((folder / export.WEIGHTS).read_bytes()).hexdigest()
    assert exported.origin == {**tiny.ORIGIN, "weights_sha256": digest}
    assert (folder / "README.md").read_text() == "# A card"


def test_an_export_of_before_its_origin_was_recorded_is_read(copy):
    (copy / export.ORIGIN).unlink()
    records.write_digests(copy, records.digests(copy, set(FILES) - {export.ORIGIN}))
    assert list(export.load(copy).origin) == ["weights_sha256"]


def test_a_label_for_each_output_is_written_or_nothing_is(written, tmp_path):
    _, model, params, config = written
    with pytest.raises(ValueError, match="a label for each of 2 outputs, got 3"):
        export.write(tmp_path / "export", model=model, params=params, config=config,
                     labels=(*tiny.LABELS, "more"), origin={}, card="")  # fmt: skip
    assert not (tmp_path / "export").exists()


def test_a_store_holds_the_same_files_and_nothing_of_before(written, tmp_path, monkeypatch):
    """Which files are written is tested on a disk; here they are copied."""
    store = object_store.install(tmp_path / "objects", monkeypatch) / "export"
    _ = (store / "checkpoint/before").write_bytes(b"of an export before")
    monkeypatch.setattr(
        export, "_write", lambda fresh, **_: shutil.copytree(written[0], fresh, dirs_exist_ok=True)
    )
    export.write(store, model=written[1], params={}, config={}, labels=(), origin={}, card="")
    assert not (store / "checkpoint/before").exists()
    for name in (*FILES, export.DIGESTS, export.CARD):
        assert (store / name).read_bytes() == (written[0] / name).read_bytes()
    assert (store / "checkpoint" / "_METADATA").exists()
    chex.assert_trees_all_equal(export.load(store).params, written[2])


def test_others_find_the_parameters_under_their_paths_and_in_an_orbax_checkpoint(written):
    folder, _, params, _ = written
    with safe_open(folder / export.WEIGHTS, framework="numpy") as opened:
        assert sorted(opened.keys()) == sorted(
            f"{layer}/{kind}" for layer in params for kind in ("kernel", "bias")
        )
        np.testing.assert_array_equal(
            opened.get_tensor("conv_0/kernel"), params["conv_0"]["kernel"]
        )
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder.absolute() / "checkpoint", params)
    chex.assert_trees_all_equal(restored, params)
    *sums, _ = (folder / export.DIGESTS).read_text().splitlines()
    assert sums == [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"
        for name in (export.WEIGHTS, export.PROGRAM, export.CONFIG, export.LABELS, export.ORIGIN)
    ]


def test_the_program_is_the_net_for_any_number_of_images(written):
    """Of sigmoid outputs p it gives p / sum p."""
    folder, model, params, config = written
    program = export.load_program(folder)
    found = [program.call(images(count)) for count in (1, 3)]
    np.testing.assert_allclose(found[0], jax.nn.softmax(logits_of(model, params, 1)), rtol=1e-6)
    assert found[0].dtype == jnp.float32 and config["head"] == "sigmoid"
    _, plain = tiny.make_config(head="softmax")
    p = 1 / (1 + np.exp(-logits_of(plain, params, 3).astype(np.float64)))
    np.testing.assert_allclose(found[1], p / p.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_program_is_for_all_platforms_and_rounds_as_the_config_says(written):
    folder, model, params, _ = written
    program = export.load_program(folder)
    assert program.platforms == ("cpu", "cuda", "tpu")
    (shape,) = program.in_avals
    assert str(shape.shape) == "(b, 20, 20, 3)" and shape.dtype == np.uint8
    assert "HIGHEST" in program.mlir_module()
    rough = export.trace(model, params, size=tiny.SIZE, precision="default")
    assert "HIGHEST" not in rough.mlir_module()


def test_equal_nets_have_equal_programs_that_name_no_file_of_this_machine(written):
    """From wherever they are written, as here from another line of another file."""
    folder, model, params, config = written
    content = (folder / export.PROGRAM).read_bytes()
    again = export.trace(model, params, size=tiny.SIZE, precision=config["matmul_precision"])
    assert bytes(again.serialize()) == content
    assert b".py" not in content and str(Path.home()).encode() not in content


def test_the_program_runs_where_nothing_of_this_code_is_imported(written, tmp_path):
    folder, model, params, _ = written
    np.save(tmp_path / "images.npy", images(1))
    code = (
        "import sys, jax, numpy as np\n"
        f"content = open({str(folder / 'model.jaxexport')!r}, 'rb').read()\n"
        "program = jax.export.deserialize(content)\n"
        "print(*np.asarray(program.call(np.load('images.npy'))).ravel().tolist())\n"
        "assert not any(name.startswith('research') for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = np.array(done.stdout.split(), np.float32).reshape(1, 2)
    np.testing.assert_allclose(found, jax.nn.softmax(logits_of(model, params, 1)), rtol=1e-6)


@pytest.mark.parametrize("variant", ["vgg", "best"])
def test_the_nets_of_the_study_have_programs_for_any_number_as_well(variant):
    config = get_config(variant)
    model, size = make_model(config, 3), config.data.size
    face = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), face)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    program = export.trace(model, params, size=size, precision="highest")
    assert str(program.out_avals[0].shape) == "(b, 3)"


def read_everything(folder):
    _ = export.load(folder)
    _ = export.load_program(folder)


@pytest.mark.parametrize("kind", ["flip", "cut", "delete", "another of them"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_in_one_line(copy, name, kind, tmp_path):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if kind == "delete":
        path.unlink()
    else:
        other = (copy / (export.LABELS if name == export.CONFIG else export.CONFIG)).read_bytes()
        whole = {"flip": content, "cut": content[: len(content) // 2], "another of them": other}
        path.write_bytes(whole[kind])
    with pytest.raises(UserError) as error:
        read_everything(copy)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and message.endswith("; export the net again")
    assert "\n" not in message
    assert ("its SHA-256 is not the one" in message) == (kind != "delete")


def test_without_its_digests_nothing_is_taken(copy):
    (copy / export.DIGESTS).unlink()
    with pytest.raises(
        UserError, match=rf"{export.DIGESTS}: lists no config\.json; export the net"
    ):
        _ = export.load(copy)
    (copy / export.DIGESTS).write_bytes(b"\xff")
    with pytest.raises(UserError, match=rf"{export.DIGESTS}: cannot be read \('utf-8' codec"):
        _ = export.load(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"1", b"\x08" + bytes(7) + b"not JSON"])
def test_what_was_never_written_so_is_refused_even_with_the_right_digest(copy, name, content):
    (copy / name).write_bytes(content)
    records.write_digests(copy, records.digests(copy, FILES))
    with pytest.raises(UserError) as error:
        read_everything(copy)
    assert str(copy / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_by_the_name_of_its_array(copy, written, number):
    flat = flax.traverse_util.flatten_dict(written[2], sep="/")
    flat["conv_0/bias"] = np.full_like(flat["conv_0/bias"], number)
    (copy / export.WEIGHTS).write_bytes(safetensors.numpy.save(flat))
    records.write_digests(copy, records.digests(copy, FILES))
    said = rf"{export.WEIGHTS}: conv_0/bias holds a number that is not finite; export the net again"
    with pytest.raises(UserError, match=said):
        _ = export.load(copy)


def test_an_export_takes_the_place_of_the_one_before_and_of_what_a_kill_left(written, tmp_path):
    folder = tmp_path / "export"
    for old in (folder, tmp_path / ".export.tmp", tmp_path / ".export.old"):
        (old / "checkpoint").mkdir(parents=True)
        (old / "stale").touch()
    _ = tiny.write(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*FILES, export.DIGESTS, "README.md", "checkpoint"]
    )
    read_everything(folder)
