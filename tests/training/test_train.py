"""The training loop against second implementations, at sizes where the two could differ."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_mlp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import prng
from research.adversarial.adversarial_training import make_hardener
from research.data import batching, synthetic
from research.data.memmap import Stored
from research.experiments.depth import make_probe
from research.models.cnn import CNN
from research.models.mlp import MLP
from research.runtime import sharding
from research.training import augment, optim, train

TX = optax.sgd(0.05)
TRAIN, TEST = synthetic.digits(200, 70)
YES = jnp.bool_(True)


def slow(value):
    """A case that differs from another in little, left to the long runs."""
    return pytest.param(value, marks=pytest.mark.slow)


SEED = jnp.uint32(0)


def net(activation="tanh", depth=3):
    return MLP(depth, 8, activation)


def start(model, seed=0):
    return train.init_states(model, TX, [seed], TRAIN.images[:1])


def one(states, row=0):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[row]), states)


def batch_of(rows, mask=None):
    mask = np.ones(len(rows), bool) if mask is None else mask
    return batching.gather(TRAIN, np.asarray(rows, np.int32), mask)


def fitted(
    model, *, seeds=(0,), epochs=3, resume=None, probe=True, batch_size=32, lr=0.05, **settings
):
    """Final states and everything that on_epoch saw: {epoch: (states, result)}."""
    seen = {}
    loop = train.Loop(epochs, batch_size, 32, make_probe(model) if probe else None, **settings)
    states = train.fit(
        model,
        optax.sgd(lr),
        TRAIN,
        TEST,
        loop,
        seeds=list(seeds),
        resume=resume,
        on_epoch=lambda number, states, result, seconds: seen.update({number: (states, result)}),
    )
    return states, seen


@pytest.mark.parametrize("activation", ["relu", slow("tanh"), slow("sigmoid"), "lecun"])
def test_gradients_and_signals_equal_those_worked_out_by_hand(activation):
    model = net(activation)
    state = one(start(model))
    batch = batch_of(range(9))
    loss, by_hand, signals_by_hand = numpy_mlp.gradients(
        state.params, model.layer_names, activation, batch.images, batch.labels
    )
    seen = {}

    def spy(gradients, signals):
        seen.update(gradients=gradients, signals=signals)
        return {}

    _, (counted, _) = train.make_step(model, TX, probe=spy)(state, batch, SEED, YES)
    assert float(counted.loss_sum) / int(counted.count) == pytest.approx(loss, rel=1e-6)
    for layer in model.layer_names:
        for leaf in ("kernel", "bias"):
            expected = by_hand[layer][leaf]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                seen["gradients"][layer][leaf], expected, rtol=1e-4, atol=1e-6 * scale
            )
        expected = signals_by_hand[layer]
        np.testing.assert_allclose(
            seen["signals"][f"{layer}_signal"],
            expected,
            rtol=1e-4,
            atol=1e-6 * np.abs(expected).max(),
        )


def test_a_step_is_plain_gradient_descent():
    model = net()
    state = one(start(model))
    batch = batch_of(range(16))
    _, by_hand, _ = numpy_mlp.gradients(
        state.params, model.layer_names, "tanh", batch.images, batch.labels
    )
    after, _ = train.make_step(model, TX)(state, batch, SEED, YES)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, by_hand)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1


def test_masked_examples_change_neither_the_update_nor_the_sums():
    model = net()
    state = one(start(model))
    step = train.make_step(model, TX)
    plain, (counted, _) = step(state, batch_of([1, 2, 3]), SEED, YES)
    mask = np.array([True, True, True, False, False])
    padded, (counted_padded, _) = step(state, batch_of([1, 2, 3, 90, 91], mask), SEED, YES)
    chex.assert_trees_all_close(padded.params, plain.params, rtol=1e-5, atol=1e-7)
    assert int(counted_padded.count) == int(counted.count) == 3
    assert float(counted_padded.loss_sum) == pytest.approx(float(counted.loss_sum), rel=1e-6)


def test_a_scanned_epoch_equals_the_python_loop_bit_for_bit():
    model = net()
    state = one(start(model))
    order = batching.epoch_order(prng.stream(0, "order", 1), 200, 32)
    step = train.make_step(model, TX, probe=make_probe(model))
    pick = train.picker(TRAIN)
    scanned, (_, statistics) = jax.jit(
        lambda state, order: train.run_steps(step, state, order, pick, SEED, YES)
    )(state, order)
    jitted, looped, each = jax.jit(step), state, []
    for indices, mask in zip(*order, strict=True):
        looped, (_, found) = jitted(looped, batching.gather(TRAIN, indices, mask), SEED, YES)
        each.append(found)
    chex.assert_trees_all_equal(scanned, looped)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    chex.assert_trees_all_equal(statistics, stacked)


@pytest.mark.parametrize("net_name", ["relu-5", slow("sigmoid-20"), slow("tanh-40")])
def test_the_probe_changes_no_bit_of_the_parameters(net_name):
    activation, depth = net_name.split("-")
    model = MLP(int(depth), 32, activation)
    with_probe, seen = fitted(model, epochs=2)
    without, unseen = fitted(model, epochs=2, probe=False)
    chex.assert_trees_all_equal(with_probe, without)
    assert seen[1][1].probe and not unseen[1][1].probe


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


def test_each_seed_of_several_is_bit_identical_to_its_run_alone():
    model = net()
    together, seen = fitted(model, seeds=[3, 4, 5, 6, 7, 8])  # more seeds than the four devices
    for row, seed in ((0, 3), (5, 8)):
        alone, seen_alone = fitted(model, seeds=[seed])
        chex.assert_trees_all_equal(one(together, row), one(alone))
        chex.assert_trees_all_equal(one(seen[2][1], row), one(seen_alone[2][1]))


def test_seeds_differ_from_one_another():
    together, _ = fitted(net(), seeds=[0, 1], epochs=1)
    kernel = together.params["hidden_01"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


def test_seeds_as_a_vmap_axis_agree_with_seeds_one_by_one():
    model = net()
    states = train.init_states(model, TX, [0, 1], TRAIN.images[:1])
    epoch = train.make_epoch(model, TX, train.Loop(1, 32, 32, make_probe(model)))
    arguments = (states, np.arange(2, dtype=np.uint32), jnp.int32(1), TRAIN, TEST)
    batched, mapped = (
        sharding.over_seeds(epoch, sharding.make_mesh(1), batched=how)(*arguments)
        for how in (True, False)
    )
    chex.assert_trees_all_close(batched, mapped, rtol=1e-4, atol=1e-6)
    assert batched[1].probe["kernel_abs_max"].shape == (2, 4)


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one():
    model = net()
    whole, seen = fitted(model, epochs=4, seeds=[0, 1])
    _, first_half = fitted(model, epochs=2, seeds=[0, 1])
    resumed, second_half = fitted(model, epochs=4, seeds=[0, 1], resume=(2, first_half[2][0]))
    chex.assert_trees_all_equal(resumed, whole)
    assert sorted(second_half) == [3, 4]
    for epoch in (3, 4):
        chex.assert_trees_all_equal(second_half[epoch][1], seen[epoch][1])


@functools.cache
def judged():
    """A net, its parameters, and what it takes each image of the test set for."""
    model = net(depth=1)
    params = one(start(model)).params
    logits = model.apply({"params": params}, train.as_input(TEST.images))
    return model, params, np.argmax(logits, axis=1)


@given(n=st.integers(1, 70), batch_size=st.integers(1, 80))
@settings(max_examples=5, deadline=None)
def test_evaluation_counts_every_example_exactly_once(n, batch_size):
    model, params, classes = judged()
    data = jax.tree.map(lambda array: array[:n], TEST)
    found = train.evaluate(model, params, data, batch_size=batch_size)
    assert int(found.count) == n
    assert int(found.correct) == int(np.sum(classes[:n] == data.labels))


def test_training_learns_the_drawn_digits():
    _, seen = fitted(MLP(2, 32, "relu"), epochs=40, lr=0.3)
    result = seen[40][1]
    assert int(result.train.correct[0]) / 200 > 0.97
    assert int(result.test.correct[0]) / 70 > 0.6


def test_an_epoch_is_traced_once_however_many_there_are():
    model = net()
    traced = []

    def probe(gradients, signals):
        traced.append(1)
        return make_probe(model)(gradients, signals)

    loop = train.Loop(5, 32, 32, probe)
    _ = train.fit(model, TX, TRAIN, TEST, loop, seeds=[0], resume=None, on_epoch=lambda *_: None)
    assert len(traced) == 1


def test_divergence_names_the_step_and_the_seed_and_the_first_layer():
    model = net("relu")
    states = train.init_states(model, TX, [4, 9], TRAIN.images[:1])
    states.params["hidden_02"]["kernel"][1, 0, 0] = np.nan
    with pytest.raises(train.Diverged) as caught:
        _ = fitted(model, seeds=[4, 9], epochs=2, resume=(1, states))
    error = caught.value
    assert (error.epoch, error.step, error.seed, error.layer) == (2, 0, 9, "hidden_02")


def test_a_net_that_is_not_finite_before_its_first_step_is_named_without_being_trained():
    class Broken(MLP):
        def preactivation(self, name, units, x):
            z = super().preactivation(name, units, x)
            return z + (jnp.float32(np.nan) if name == "hidden_01" else 0.0)

    with pytest.raises(train.Diverged, match=r"at step 0 \(epoch 0\).* hidden_02"):
        _ = fitted(Broken(3, 8, "tanh"))


def test_a_learning_rate_far_too_large_stops_the_run_before_the_epoch_is_recorded():
    seen, traced = {}, []

    def harden(params, key, batch):
        traced.append(1)
        return batch.images

    model = net("relu")
    loop = train.Loop(3, 32, 32, harden=harden)
    with pytest.raises(train.Diverged, match=r"seed 0 is not finite at step \d+ \(epoch 1\)"):
        _ = train.fit(
            model,
            optax.sgd(1e30),
            TRAIN,
            TEST,
            loop,
            seeds=[0],
            resume=None,
            on_epoch=lambda number, *_: seen.update({number: True}),
        )
    assert seen == {}
    assert len(traced) == 2  # in the program of the epoch, and in the step that the diagnosis takes


def test_only_uint8_images_are_accepted():
    with pytest.raises(AssertionError, match="uint8"):
        _ = train.as_input(np.zeros((1, 2, 2, 1), np.float32))
    assert float(train.as_input(np.full((1, 1, 1, 1), 255, np.uint8)).max()) == 1.0


SMALL_TRAIN, SMALL_TEST = (
    type(data)(images=data.images[:n, 10:18, 10:18], labels=data.labels[:n])
    for data, n in ((TRAIN, 40), (TEST, 20))
)
CHANGE = augment.make_augment(shift_pixels=1, mirrored=True)
ADAM = optim.make_optimizer(0.01, name="adam")


def convolutional():
    return CNN(filters=(2, 3), pools=(1, 2), dropouts=(0, 0.25), dense=(5,), dense_dropouts=(0.5,))


HARDEN = make_hardener(convolutional(), radius=0.1, steps=1)
# Three steps an epoch, and everything in them that is random.
RANDOM = train.Loop(
    *(2, 16, 20),
    change=CHANGE,
    harden=HARDEN,
    smoothing=0.1,
    steps_per_dispatch=2,
    convolutions=True,
)


def fitted_randomly(
    resume=None, on_steps=lambda *_: None, data=(SMALL_TRAIN, SMALL_TEST), **changes
):
    """As `fitted`: two seeds of the convolutional net, for two epochs."""
    seen = {}
    states = train.fit(
        convolutional(),
        ADAM,
        *data,
        RANDOM._replace(**changes),
        seeds=[0, 1],
        resume=resume,
        on_epoch=lambda number, states, result, seconds: seen.update({number: (states, result)}),
        on_steps=on_steps,
    )
    return states, seen


@pytest.fixture(scope="module")
def looked():
    """What `fitted_randomly` returns with two looks an epoch, and what was seen at them."""
    looks = []
    states, seen = fitted_randomly(on_steps=lambda *numbers: looks.append(numbers))
    return states, seen, looks


@pytest.mark.parametrize("steps_per_dispatch", [0, slow(100)])
def test_how_often_fit_comes_up_for_air_changes_no_bit(steps_per_dispatch, looked):
    """Never; or once; or twice, the second time with an empty step."""
    states, seen = fitted_randomly(steps_per_dispatch=steps_per_dispatch)
    chex.assert_trees_all_equal((states, seen), looked[:2])
    assert states.step.tolist() == [6, 6]


def test_every_look_says_how_far_the_epoch_is(looked):
    assert looked[2] == [(1, 2, 3), (1, 3, 3), (2, 2, 3), (2, 3, 3)]


def test_a_run_with_dropout_and_changed_images_is_resumed_bit_for_bit(looked):
    whole, seen, _ = looked
    resumed, second_half = fitted_randomly(resume=(1, seen[1][0]))
    chex.assert_trees_all_equal(resumed, whole)
    chex.assert_trees_all_equal(second_half, {2: seen[2]})


def test_what_is_raised_within_an_epoch_ends_the_training_and_loses_the_epoch():
    finished, loop = [], train.Loop(3, 64, 64, steps_per_dispatch=1)

    def stop(number, done, steps):
        if (number, done) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = train.fit(
            *(net(depth=1), TX, TRAIN, TEST, loop),
            seeds=[0],
            resume=None,
            on_epoch=lambda number, *_: finished.append(number),
            on_steps=stop,
        )
    assert finished == [1]


@pytest.fixture(scope="module")
def random_step():
    """A compiled step with dropout and changed images, the state before it and a batch."""
    model = CNN(filters=(), pools=(), dropouts=(), dense=(5,), dense_dropouts=(0.5,))
    state = one(train.init_states(model, ADAM, [0], SMALL_TRAIN.images))
    batch = batching.gather(SMALL_TRAIN, np.arange(16), np.ones(16, bool))
    return jax.jit(train.make_step(model, ADAM, change=CHANGE)), state, batch


def test_what_is_random_in_a_step_is_a_function_of_seed_and_step(random_step):
    step, state, batch = random_step
    found = step(state, batch, SEED, YES)
    chex.assert_trees_all_equal(step(state, batch, SEED, YES), found)
    (_, (counted, _)), later = found, state.replace(step=state.step + 1)
    for other in (step(state, batch, SEED + 1, YES), step(later, batch, SEED, YES)):
        assert float(other[1][0].loss_sum) != float(counted.loss_sum)


def test_a_batch_that_is_masked_as_a_whole_changes_nothing(random_step):
    step, state, batch = random_step
    state, _ = step(state, batch, SEED, YES)  # with momentum that would go on
    empty = batch.replace(mask=jnp.zeros(16, bool))
    after, (counted, _) = step(state, empty, SEED, YES)
    chex.assert_trees_all_equal(after, state)
    assert (float(counted.loss_sum), int(counted.count), int(counted.correct)) == (0.0, 0, 0)


def test_rows_from_a_step_on_are_those_of_the_epoch_and_then_empty(key):
    order = batching.epoch_order(key, 10, 3)
    indices, mask = batching.rows_from(order, 2, 3)
    chex.assert_trees_all_equal((indices[:2], mask[:2]), (order[0][2:], order[1][2:]))
    assert indices.shape == (3, 3) and not mask[2].any()


def test_images_are_changed_then_hardened_and_targets_smoothed_but_not_in_the_test():
    model, still = net(depth=1), optax.sgd(0.0)
    loop = train.Loop(
        *(1, 64, 64),
        change=lambda _, images: 255 - images,
        harden=lambda params, key, batch: batch.images // 2,
        smoothing=0.5,
    )
    state = one(start(model))
    epoch = jax.jit(train.make_epoch(model, still, loop))
    _, result = epoch(state, SEED, jnp.int32(1), TRAIN, TEST)

    def losses(images, labels):
        """Summed, of the label and of all classes alike."""
        logits = np.asarray(model.apply({"params": state.params}, train.as_input(images)))
        minus_log = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
        return minus_log[np.arange(len(labels)), labels].sum(), minus_log.mean(axis=1).sum()

    sharp, even = losses((255 - TRAIN.images) // 2, TRAIN.labels)
    assert float(result.train.loss_sum) == pytest.approx((sharp + even) / 2, rel=1e-5)
    assert float(result.test.loss_sum) == pytest.approx(
        losses(TEST.images, TEST.labels)[0], rel=1e-5
    )


def test_what_hardens_is_given_the_net_before_its_update_and_a_key_of_seed_and_step():
    model = net(depth=1)
    state = one(start(model)).replace(step=jnp.int32(7))
    batch = batch_of(range(4))

    @jax.jit
    def stepped(state, batch):
        given = []

        def harden(*arguments):
            given.extend(arguments)
            return jnp.zeros_like(batch.images)

        after, _ = train.make_step(model, TX, harden=harden)(state, batch, SEED, YES)
        return after, given

    after, (params, key, seen) = stepped(state, batch)
    chex.assert_trees_all_equal((params, seen), (state.params, batch))
    assert key == prng.stream(0, "harden", 7)
    first = model.layer_names[0]  # it sees black, which moves its bias only
    moved = [after.params[first][leaf] != params[first][leaf] for leaf in ("kernel", "bias")]
    assert [bool(each.any()) for each in moved] == [False, True]


@given(n=st.integers(1, 20), batch_size=st.integers(1, 25))
@settings(max_examples=4, deadline=None)
def test_predictions_are_those_of_every_image_alone_in_order(n, batch_size):
    model = net(depth=1)
    params = one(start(model)).params
    images = TEST.images[:n]
    found = train.predict(model, params, images, batch_size=batch_size)
    alone = [model.apply({"params": params}, train.as_input(image[None]))[0] for image in images]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5, atol=1e-5)


def stored(data, folder, name):
    """The same data set with its images in a file."""
    path = folder / name
    path.write_bytes(np.asarray(data.images).tobytes())
    return data.replace(images=Stored(path, data.images.shape))


def test_seeds_on_eight_devices_end_as_on_one_to_the_bit(monkeypatch):
    seeds, all_devices = range(8), jax.devices()
    spread = fitted(net(), seeds=seeds, epochs=1)
    monkeypatch.setattr(jax, "devices", lambda: all_devices[:1])
    chex.assert_trees_all_equal(fitted(net(), seeds=seeds, epochs=1), spread)


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
    """Dropout, augmentation and hardening; batches of 16 on three devices of six."""
    few = jax.devices()[:6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: few)
        _, alone = fitted_randomly()
        changes = {"data_devices": 3}
        if on_disk:
            changes["data"] = stored(SMALL_TRAIN, tmp_path, "a"), stored(SMALL_TEST, tmp_path, "b")
        _, shared = fitted_randomly(**changes)
    chex.assert_trees_all_close(alone, shared, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("seeds", [slow((0,)), (3, 5)])
def test_images_on_the_disk_train_the_same_nets_to_the_bit(tmp_path, monkeypatch, seeds):
    """In four pieces of two steps, the last one not full, and two pieces of the test set."""
    monkeypatch.setattr(train, "_READ_BYTES", 3 * 32 * 784 * len(seeds))
    files = stored(TRAIN, tmp_path, "train"), stored(TEST, tmp_path, "test")
    model, looks = net(), []
    loop = train.Loop(2, 32, 32)

    def fit(train_set, test_set):
        rows = []
        keep = lambda number, states, result, seconds: rows.append(result)  # noqa: E731
        return train.fit(
            model, TX, train_set, test_set, loop, seeds=seeds, resume=None, on_epoch=keep,
            on_steps=lambda *at: looks.append(at),
        ), rows  # fmt: skip

    states, rows = fit(TRAIN, TEST)
    chex.assert_trees_all_equal((states, rows), fit(*files))
    assert looks == [(n, done, 7) for n in (1, 2) for done in (2, 4, 6, 7)]
    logits = train.predict_all(model, states.params, TEST.images, loop, seeds=len(seeds))
    again = train.predict_all(model, states.params, files[1].images, loop, seeds=len(seeds))
    np.testing.assert_array_equal(logits, again)


def test_a_step_that_diverges_on_images_from_the_disk_is_found(tmp_path):
    loop = train.Loop(2, 32, 32)
    with pytest.raises(train.Diverged) as told:
        train.fit(
            net("relu"), optax.sgd(1e30), stored(TRAIN, tmp_path, "x"), TEST, loop, seeds=[0],
            resume=None, on_epoch=lambda *_: None,
        )  # fmt: skip
    assert (told.value.epoch, told.value.seed) == (1, 0)


def stopping_fit(loop, *, seeds, resume=None):
    """Nets that learn by heart: {epoch: (states, result)}."""
    seen = {}
    states = train.fit(
        net("relu", 2), optax.sgd(0.2), SMALL_TRAIN, SMALL_TEST, loop, seeds=seeds, resume=resume,
        on_epoch=lambda number, states, result, _: seen.update({number: (states, result)}),
    )  # fmt: skip
    return states, seen


@pytest.mark.parametrize("steps_per_dispatch", [slow(0), 2])
def test_each_seed_stops_by_itself_and_stays_as_it_was_alone(steps_per_dispatch):
    """Patience 1: a seed ends with the first epoch whose test loss is not its lowest."""
    loop = train.Loop(9, 8, 32, patience=1, keep_best=True, steps_per_dispatch=steps_per_dispatch)
    states, seen = stopping_fit(loop, seeds=[0, 1, 2])
    ends = []
    for row in range(3):
        alone, rows = stopping_fit(loop, seeds=[row])
        chex.assert_trees_all_equal(one(states, row), one(alone))
        losses = [float(r.test.loss_sum[0]) for _, r in rows.values()]
        assert all(a > b for a, b in itertools.pairwise(losses[:-1]))
        assert losses[-1] >= losses[-2] and states.kept.epoch[row] == len(rows) - 1
        best = rows[len(rows) - 1][0].params
        chex.assert_trees_all_equal(one(states.kept.params, row), one(best))
        ends.append(len(rows))
    assert len(seen) == max(ends) and len(set(ends)) > 1
    for number, (_, result) in seen.items():
        np.testing.assert_array_equal(result.trained, [number <= end for end in ends])
        np.testing.assert_array_equal(result.train.count > 0, result.trained)


def test_early_stopping_goes_on_from_a_saved_state():
    loop = train.Loop(9, 8, 32, patience=1)
    states, seen = stopping_fit(loop, seeds=[0, 1])
    again, rest = stopping_fit(loop, seeds=[0, 1], resume=(2, seen[2][0]))
    chex.assert_trees_all_equal(states, again)
    assert list(rest) == list(seen)[2:]
    assert stopping_fit(loop, seeds=[0, 1], resume=(max(seen), states))[1] == {}


def test_a_stored_test_set_is_filled_up_by_less_than_a_batch(tmp_path):
    """Pieces are no larger than the set: what fills them up costs as much as what counts."""
    ((data, valid),) = train._test_pieces(stored(TEST, tmp_path, "x"), 32, sharding.make_mesh(1))
    assert (len(data.images), int(valid)) == (96, 70)
