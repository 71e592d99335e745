"""Epochs in pieces, resident or streamed, over seeds and devices: the same numbers to the bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_mlp
import optax
import pytest

from research import prng
from research.data import batching
from research.experiments.depth import make_probe
from research.runtime import sharding
from research.training import evaluate
from research.training.epoch import make_epoch, make_steps
from research.training.fit import fit
from research.training.step import Loop, as_input, init_states, make_step
from training.small import (
    SEED,
    SMALL_TEST,
    SMALL_TRAIN,
    TEST,
    TRAIN,
    TX,
    YES,
    batch_of,
    fitted,
    fitted_randomly,
    net,
    one,
    slow,
    start,
    stored,
)  # fmt: skip

pytestmark = pytest.mark.optimized


def test_a_scanned_epoch_equals_the_python_loop_bit_for_bit():
    model = net()
    state = one(start(model))
    order = batching.epoch_order(prng.stream(0, "order", 1), 200, 32)
    loop = Loop(1, 32, 32, make_probe(model))
    steps, step = make_steps(model, TX, loop), make_step(model, TX, loop)
    scanned, (_, statistics) = jax.jit(steps)(state, (SEED, order), jnp.int32(1), TRAIN)
    jitted, looped, each = jax.jit(step), state, []
    for indices, mask in zip(*order, strict=True):
        looped, (_, found) = jitted(looped, batching.gather(TRAIN, indices, mask), SEED, YES)
        each.append(found)
    chex.assert_trees_all_equal(scanned, looped)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    chex.assert_trees_all_equal(statistics, stacked)


@pytest.mark.usefixtures("quickly_compiled")
def test_epoch_zero_probes_the_initial_net_and_leaves_it_as_it_is():
    model = net()
    _, seen = fitted(model, epochs=1)
    states, result = seen[0]
    chex.assert_trees_all_equal(states, start(model))
    indices, mask = batching.epoch_order(prng.stream(np.uint32(0), "order", 1), 200, 32)
    maxima = []
    for row, real in zip(indices, mask, strict=True):
        batch = batch_of(np.asarray(row)[np.asarray(real)])
        params = one(start(model)).params
        _, by_hand, signals = numpy_mlp.gradients(
            params, model.layer_names, "tanh", batch.images, batch.labels
        )
        maxima.append(
            [
                (np.abs(by_hand[layer]["kernel"]).max(), np.abs(signals[layer]).max())
                for layer in model.layer_names
            ]
        )
    expected = np.max(maxima, axis=0).T
    np.testing.assert_allclose(result.probe["kernel_abs_max"][0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(result.probe["signal_abs_max"][0], expected[1], rtol=1e-4)


@pytest.mark.usefixtures("quickly_compiled")
def test_seeds_as_a_vmap_axis_agree_with_seeds_one_by_one():
    model = net()
    states, mesh = init_states(model, TX, [0, 1], TRAIN.images[:1]), sharding.make_mesh(1)
    batched, mapped = (
        make_epoch(
            *(model, TX, Loop(1, 32, 32, make_probe(model)), TRAIN, TEST),
            seeds=[0, 1],
            mesh=mesh,
            batched=how,
        )(sharding.place_seeds(states, mesh), 1, lambda *_: None)
        for how in (True, False)
    )
    chex.assert_trees_all_close(batched, mapped, rtol=1e-4, atol=1e-6)
    assert batched[1].probe["kernel_abs_max"].shape == (2, 4)


@pytest.mark.usefixtures("quickly_compiled")
def test_images_are_augmented_then_adversarial_and_targets_smoothed_but_not_in_the_test():
    model, still = net(depth=1), optax.sgd(0.0)
    loop = Loop(
        *(1, 64, 64),
        augment=lambda _, images: 255 - images,
        adversarial=lambda params, key, batch: batch.images // 2,
        label_smoothing=0.5,
    )
    states, mesh = start(model), sharding.make_mesh(1)
    epoch = make_epoch(model, still, loop, TRAIN, TEST, seeds=[0], mesh=mesh)
    _, result = epoch(sharding.place_seeds(states, mesh), 1, lambda *_: None)
    params = one(states).params

    def losses(images, labels):
        """Summed, of the label and of all classes alike."""
        logits = np.asarray(model.apply({"params": params}, as_input(images)))
        minus_log = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
        return minus_log[np.arange(len(labels)), labels].sum(), minus_log.mean(axis=1).sum()

    sharp, even = losses((255 - TRAIN.images) // 2, TRAIN.labels)
    assert float(result.train.loss_sum[0]) == pytest.approx((sharp + even) / 2, rel=1e-5)
    assert float(result.test.loss_sum[0]) == pytest.approx(
        losses(TEST.images, TEST.labels)[0], rel=1e-5
    )


@pytest.fixture(scope="module")
def in_pieces():
    """What `fitted_randomly` returns with two pieces an epoch, and the calls of `on_steps`."""
    calls = []
    states, seen = fitted_randomly(on_steps=lambda *numbers: calls.append(numbers))
    return states, seen, calls


@pytest.mark.parametrize("steps_per_dispatch", [0, slow(100)])
def test_an_epoch_in_pieces_is_the_whole_epoch_to_the_bit(steps_per_dispatch, in_pieces):
    """One piece; or one of all three steps; or two, the second one with an empty step."""
    states, seen = fitted_randomly(steps_per_dispatch=steps_per_dispatch)
    chex.assert_trees_all_equal((states, seen), in_pieces[:2])
    assert states.step.tolist() == [6, 6]


def test_after_every_piece_on_steps_hears_how_far_the_epoch_is(in_pieces):
    assert in_pieces[2] == [(1, 2, 3), (1, 3, 3), (2, 2, 3), (2, 3, 3)]


@pytest.mark.usefixtures("quickly_compiled")
def test_devices_that_share_a_batch_agree_with_one_within_rounding():
    """Batches of 30 on four devices, which hold eight each; the sums are of other parts."""
    seen = {
        devices: fitted(net(), epochs=2, batch_size=30, data_devices=devices)[1]
        for devices in (1, 4)
    }
    for epoch, (states, result) in seen[1].items():
        shared_states, shared = seen[4][epoch]
        chex.assert_trees_all_close(shared_states.params, states.params, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(shared, result, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [False, True])
def test_whatever_is_random_is_the_same_where_devices_share_a_batch(tmp_path, on_disk):
    """Dropout, augmentation and adversarial images; batches of 16 on three devices of six."""
    few = jax.devices()[:6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: few)
        _, alone = fitted_randomly()
        changes = {"data_devices": 3}
        if on_disk:
            changes["data"] = stored(SMALL_TRAIN, tmp_path, "a"), stored(SMALL_TEST, tmp_path, "b")
        _, shared = fitted_randomly(**changes)
    chex.assert_trees_all_close(alone, shared, rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("seeds", [slow((0,)), (3, 5)])
def test_images_on_the_disk_train_the_same_nets_to_the_bit(tmp_path, monkeypatch, seeds):
    """In four pieces of two steps, the last one not full, and two pieces of the test set."""
    monkeypatch.setattr(evaluate, "_READ_BYTES", 3 * 32 * 784 * len(seeds))
    files = stored(TRAIN, tmp_path, "train"), stored(TEST, tmp_path, "test")
    model, calls = net(), []
    loop = Loop(2, 32, 32)

    def run(train_set, test_set):
        rows = []
        keep = lambda number, states, result, seconds: rows.append(result)  # noqa: E731
        return fit(
            model, TX, train_set, test_set, loop, seeds=seeds, resume=None, on_epoch=keep,
            on_steps=lambda *at: calls.append(at),
        ), rows  # fmt: skip

    states, rows = run(TRAIN, TEST)
    calls.clear()
    chex.assert_trees_all_equal((states, rows), run(*files))
    assert calls == [(n, done, 7) for n in (1, 2) for done in (2, 4, 6, 7)]
    logits = evaluate.predict_all(model, states.params, TEST.images, loop, seeds=len(seeds))
    again = evaluate.predict_all(model, states.params, files[1].images, loop, seeds=len(seeds))
    np.testing.assert_array_equal(logits, again)


@pytest.mark.usefixtures("quickly_compiled")
def test_an_epoch_is_traced_once_however_many_there_are():
    model = net()
    traced = []

    def probe(gradients, signals):
        traced.append(1)
        return make_probe(model)(gradients, signals)

    loop = Loop(5, 32, 32, probe)
    _ = fit(model, TX, TRAIN, TEST, loop, seeds=[0], resume=None, on_epoch=lambda *_: None)
    assert len(traced) == 1


def test_a_run_with_dropout_and_augmentation_is_resumed_bit_for_bit(in_pieces):
    whole, seen, _ = in_pieces
    resumed, second_half = fitted_randomly(resume=(1, seen[1][0]))
    chex.assert_trees_all_equal(resumed, whole)
    chex.assert_trees_all_equal(second_half, {2: seen[2]})
