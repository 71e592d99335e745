"""The one call: as good as it says, compiled once, and blind to what else is asked of it."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adversarial import linear_nets
from research import prng
from research.adversarial import criterion, generate, loop
from research.adversarial.augmented_lagrangian import AugmentedLagrangian
from research.adversarial.faithful import Faithful
from research.adversarial.minimal import Minimal
from research.adversarial.pgd import PGD
from research.adversarial.polish import Polish
from research.models.cnn import ResNet
from research.runtime import sharding

PARAMS, IMAGES, LABELS = linear_nets.draw(1, count=5)
ROUNDS = 7


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Walk:
    """Every number of its depends on all that a case is given, and is whole: equal or not."""

    required: float = 0.0
    steps_per_round = 1

    def start(self, classify, case, progress):
        return loop.State(progress, jnp.uint32(0))

    def advance(self, classify, case, state, round_index):
        steps = state.progress.steps
        drawn = jax.random.bits(prng.after(case.key, "walk", steps), (), jnp.uint32)
        wanted = jnp.arange(linear_nets.CLASSES) == case.target
        seen = classify(criterion.decode(case.image), None)
        value = jnp.sum(jnp.where(wanted, seen, 0.0)) + jnp.where(case.actual == 1, 0.5, 0.0)
        lives = (case.target + jnp.asarray(case.image[0, 0, 0], jnp.int32)) % ROUNDS
        inner = state.inner * jnp.uint32(31) + drawn
        last = case.image + jnp.asarray(inner >> 24, jnp.uint8)
        progress = dataclasses.replace(
            state.progress,
            last=last,
            steps=steps + 1,
            first=jnp.where(steps == 0, jnp.asarray(drawn >> 1, jnp.int32), state.progress.first),
            last_margin=value,
            running=steps < lives,
            success=jnp.ones((), bool),
        )
        return loop.State(progress, inner)


def first_pixel(params, images, *, dropout=None):
    """Logits without a sum, the same in every batch."""
    linear_nets.TRACES.append(images.shape)
    if dropout is not None:
        images = images + jax.random.uniform(dropout, images.shape)
    return images.reshape(len(images), -1)[:, : linear_nets.CLASSES] * params[None]


SCALE = np.arange(1, 6, dtype=np.float32)
SEARCHES = [AugmentedLagrangian(steps=20, norm=norm) for norm in ("l2", "linf", "l1")]


def walk(rows=slice(None), **settings):
    settings = {"sizes": (10, 4), "methods": (Walk(),), **settings}
    return jax.tree.map(
        np.asarray,
        generate.generate(first_pixel, SCALE, IMAGES[rows], LABELS[rows], **settings),
    )


@pytest.fixture(scope="module")
def walked():
    return walk()


def test_neither_sizes_nor_place_nor_neighbours_matter_to_a_case(walked):
    """One case alone, by its number and its target; others in another order."""
    lives = (np.arange(5)[None] + IMAGES[:, :1, 0, 0].astype(int)) % ROUNDS
    np.testing.assert_array_equal(walked.steps, lives + 1)
    chex.assert_trees_all_equal(walk(sizes=None), walked)
    alone = walk(slice(3, 4), numbers=[3], targets=[[2]], sizes=(1,))
    chex.assert_trees_all_equal(alone, jax.tree.map(lambda leaf: leaf[3:4, 2:3], walked))
    order = np.array([4, 0, 3, 1, 2])
    targets = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 2, 4, 3],
                        [2, 3, 4, 0, 1], [0, 4, 1, 2, 3]])  # fmt: skip
    mixed = walk(order, numbers=order, targets=targets)
    expected = jax.tree.map(
        lambda leaf: np.take_along_axis(
            leaf[order], targets.reshape(5, 5, *[1] * (leaf.ndim - 2)), 1
        ),
        walked,
    )
    chex.assert_trees_all_equal(mixed, expected)


@pytest.mark.parametrize(
    "method",
    [
        Walk(),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (Minimal(), *SEARCHES)),
    ],
    ids=lambda method: f"{type(method).__name__} {getattr(method, 'norm', '')}",
)
def test_one_device_and_eight_give_the_same_cases_to_the_bit(method, monkeypatch):
    """25 cases: of eight devices one has four of them, the others three.

    A method with sums in it has the same bits where all groups are of the one size of a CPU.
    """
    sizes = None if isinstance(method, AugmentedLagrangian) else (4, 2)
    eight, settings = jax.devices(), {"methods": (method,), "sizes": sizes}
    spread = walk(**settings)
    monkeypatch.setattr(jax, "devices", lambda: eight[:1])
    chex.assert_trees_all_equal(walk(**settings), spread)


@pytest.mark.parametrize(
    ("cases", "devices", "group"), [(25, 8, 1), (3, 8, 2), (16, 4, 3), (5, 1, 5)]
)
def test_cases_are_dealt_like_cards_and_found_again(cases, devices, group):
    places, back = generate._deal(cases, devices, group)
    hands = places.reshape(devices, -1)
    assert hands.shape[1] % group == 0 and hands.size < cases + devices * group
    assert [len(hand[hand < cases]) for hand in hands] == [
        len(range(device, cases, devices)) for device in range(devices)
    ]
    np.testing.assert_array_equal(places[back], np.arange(cases))


def test_seed_number_and_target_each_change_what_a_case_draws(walked):
    same = np.broadcast_to(IMAGES[2:3], IMAGES.shape)
    drawn = generate.generate(
        first_pixel, SCALE, same, np.zeros(5, int), methods=(Walk(),), sizes=(10, 4)
    )
    assert len(set(np.asarray(drawn.first).reshape(-1).tolist())) == 25
    other = walk(seed=1)
    assert (other.first != walked.first).all()
    np.testing.assert_array_equal(other.steps, walked.steps)


def test_all_classes_are_the_targets_where_none_are_named(walked):
    every = np.tile(np.arange(5), (5, 1))
    chex.assert_trees_all_equal(walk(targets=every), walked)
    assert walked.best.shape == (5, 5, *linear_nets.SHAPE)
    assert generate.count_classes(first_pixel, SCALE, IMAGES) == 5


def test_a_method_with_dropout_gives_its_key_to_the_net_and_others_give_none(walked):
    plain = IMAGES.reshape(5, -1)[:, :5] / 255 * SCALE + (LABELS == 1)[:, None] * 0.5
    np.testing.assert_allclose(walked.last_margin, plain, rtol=1e-5)
    classify, image = generate.frozen(first_pixel, SCALE), criterion.decode(IMAGES[2])
    found = [np.asarray(classify(image, key)) for key in jax.random.split(jax.random.key(0))]
    assert (found[0] != found[1]).all() and (found[0] != classify(image, None)).all()


@pytest.fixture(scope="module")
def default():
    """Of the default method, and how often the classifier was traced by two calls."""
    before = len(linear_nets.TRACES)
    found = generate.generate(linear_nets.logits, PARAMS, IMAGES, LABELS, sizes=(25,))
    between = len(linear_nets.TRACES)
    flat = jax.tree.map(np.zeros_like, PARAMS)
    again = generate.generate(
        linear_nets.logits, flat, IMAGES[::-1], LABELS, sizes=(25,), seed=3,
        numbers=np.arange(5) + 7,
    )  # fmt: skip
    after = len(linear_nets.TRACES)
    return jax.tree.map(np.asarray, found), again, between - before, after - between


def test_a_second_call_traces_nothing_and_the_first_a_few_times(default):
    """Once for the number of classes, for each gradient of the method and of the polish."""
    assert default[3] == 0 and 0 < default[2] <= 5
    assert not default[1].success.any() and default[0].success.all()


def test_the_default_comes_close_to_the_smallest_noise_there_is(default):
    """Toward every class and away from the own one; black and white images as well.

    What rounding to bytes adds, at most half a level to every value, stands beside the 5 %.
    """
    rounding, ratios = np.sqrt(IMAGES[0].size / 12) / 255, []
    for n, t in np.ndindex(5, 5):
        least = linear_nets.smallest(
            PARAMS, IMAGES[n], LABELS[n], t, AugmentedLagrangian().required
        )
        found = float(default[0].best_l2[n, t])
        assert 0.999 * least <= found <= np.hypot(1.05 * least, rounding) + 1 / 255
        ratios.append(found / least)
    assert np.median(ratios) < 1.03


def test_what_is_said_of_every_case_is_true_of_its_bytes(default):
    linear_nets.check_claims(PARAMS, IMAGES, LABELS, default[0], AugmentedLagrangian().required)


def test_polish_makes_noise_smaller_and_takes_no_success_away(default):
    plain = generate.generate(
        linear_nets.logits, PARAMS, IMAGES, LABELS, methods=(AugmentedLagrangian(),), sizes=(25,)
    )
    assert plain.success.all()
    less = default[0].best_l2 / np.asarray(plain.best_l2)
    assert np.mean(less) < 0.9999 and np.max(less) < 1.001
    more = default[0].steps - np.asarray(plain.steps)
    assert ((more >= 1) & (more <= 8)).all()


def test_no_gradient_reaches_the_parameters_and_nothing_changes_them(default):
    np.testing.assert_array_equal(PARAMS[0], linear_nets.draw(1, count=5)[0][0])
    np.testing.assert_array_equal(PARAMS[1], linear_nets.draw(1, count=5)[0][1])

    def total(params, image):
        return jnp.sum(generate.frozen(linear_nets.logits, params)(image, None))

    of_params, of_image = jax.grad(total, argnums=(0, 1))(PARAMS, criterion.decode(IMAGES[2]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_params))
    assert of_image.all()


@pytest.mark.parametrize("batch_size", [2, 5, 8])
def test_logits_are_those_of_every_image_whatever_the_batches(batch_size):
    found = generate.logits_of(linear_nets.logits, PARAMS, IMAGES, batch_size=batch_size)
    np.testing.assert_allclose(found, linear_nets.exact(PARAMS, IMAGES), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": IMAGES / np.float32(255)}, r"images: .* uint8, got float32 \[5"),
        ({"images": IMAGES[0]}, "images: "),
        ({"labels": LABELS[:4]}, r"labels: expected \[5\], got \[4\]"),
        ({"labels": np.eye(5, dtype=int)[LABELS]}, r"labels: expected \[5\], got \[5, 5\]"),
        ({"labels": LABELS + 0.5}, "labels to be integers, got float64"),
        ({"labels": LABELS + 5}, r"labels 0\.\.4, got"),
        ({"labels": LABELS - 5}, r"labels 0\.\.4, got -"),
        ({"targets": np.zeros((4, 2), int)}, r"targets: expected \[5, T\], got \[4, 2\]"),
        ({"targets": np.zeros(5, int)}, r"targets: expected \[5, T\], got \[5\]"),
        ({"targets": np.full((5, 1), 5)}, r"targets 0\.\.4, got 5"),
        ({"targets": np.full((5, 1), -1)}, r"targets 0\.\.4, got -1"),
        ({"targets": np.ones((5, 1))}, "targets to be integers, got float64"),
        ({"numbers": np.arange(4)}, r"numbers: expected \[5\], got \[4\]"),
        ({"numbers": np.arange(5) + 2**31}, "numbers 0"),
        ({"seed": -1}, "seed 0"),
        ({"seed": 2**32}, "seed 0"),
        ({"methods": ()}, "methods: "),
        ({"params": (*PARAMS[:1], "bias")}, r"params\[1\]: expected an array of numbers, got 'b"),
        ({"apply_fn": lambda p, x: (linear_nets.logits(p, x), 1)}, "apply_fn: .* got a tuple"),
        ({"apply_fn": lambda p, x: {"it": linear_nets.logits(p, x)}}, "apply_fn: .* got a dict"),
        ({"apply_fn": lambda p, x: linear_nets.logits(p, x)[0]}, r"apply_fn: .* float32 \[5\]"),
        ({"apply_fn": lambda p, x: linear_nets.logits(p, x)[:, :1]}, "apply_fn: .* two classes"),
        ({"apply_fn": lambda p, x: linear_nets.logits(p, x) > 0}, "apply_fn: .* got bool"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    given = {"apply_fn": linear_nets.logits, "params": PARAMS, "images": IMAGES, "labels": LABELS}
    with pytest.raises(ValueError, match=said):
        _ = generate.generate(**given | changes)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        *((Minimal, {"steps": 0}), (Minimal, {"search": 2.5}), (Minimal, {"required": 0.0})),
        *((Polish, {"rounds": -1}), (Polish, {"required": -1.0})),
        *((Faithful, {"steps": 0}), (Faithful, {"check_every": "1"})),
        *((partial(PGD, 0.1), {"steps": 0}), (partial(PGD, 0.1), {"restarts": 0})),
        *((partial(PGD, 0.1), {"required": 0.0}), (PGD, {"radius": 0.0})),
    ],
)
def test_a_setting_that_is_too_small_is_refused(method, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}: .* is not (a positive|an integer)"):
        _ = method(**setting)


def test_without_a_case_there_is_an_empty_result_of_the_right_shapes():
    for images, targets in ((0, None), (0, 2), (5, 0)):
        given = {} if targets is None else {"targets": np.zeros((images, targets), int)}
        grid = images, linear_nets.CLASSES if targets is None else targets
        empty = generate.generate(linear_nets.logits, PARAMS, IMAGES[:images], LABELS[:images],
                                  **given)  # fmt: skip
        assert empty.best.shape == (*grid, *linear_nets.SHAPE) and empty.best.dtype == np.uint8
        assert empty.success.shape == grid and empty.success.dtype == bool
    none = generate.logits_of(linear_nets.logits, PARAMS, IMAGES[:0], batch_size=4)
    assert none.shape == (0, linear_nets.CLASSES)


def test_inside_of_a_program_it_runs_beforehand_or_says_that_it_cannot(walked):
    found = jax.jit(lambda factor: walk().last_margin * factor)(np.float32(1))
    np.testing.assert_array_equal(found, walked.last_margin)
    with pytest.raises(ValueError, match="generate: an argument is traced"):
        jax.jit(lambda images: walk_on(images))(IMAGES)


def walk_on(images):
    return generate.generate(first_pixel, SCALE, images, LABELS, methods=(Walk(),)).success


HALF = [np.float16, jnp.bfloat16, np.float32]


@pytest.mark.parametrize("dtype", HALF, ids=lambda dtype: np.dtype(dtype).name)
def test_what_is_reached_is_predicted_and_by_no_tie_whatever_the_type_of_the_net(dtype):
    """Logits in whole steps of 1/8: ties on the way are no end of it."""

    def coarse(params, images):
        steps = 8 * linear_nets.logits(params, images) / 2
        return jnp.asarray(steps + jax.lax.stop_gradient(jnp.round(steps) - steps), dtype) / 8

    method = PGD(0.5, steps=20, restarts=1)
    found = generate.generate(coarse, PARAMS, IMAGES, LABELS, methods=(method,))
    best = np.asarray(found.best).reshape(25, *linear_nets.SHAPE)
    logits = generate.logits_of(coarse, PARAMS, best, batch_size=25)
    assert logits.dtype == np.float32 == found.best_margin.dtype
    largest = logits == logits.max(axis=1, keepdims=True)
    wanted = np.eye(5, dtype=bool)[np.tile(np.arange(5), 5)]
    only = (largest == wanted).all(axis=1).reshape(5, 5)
    left = ~(largest & wanted).any(axis=1).reshape(5, 5)
    own = np.eye(5, dtype=bool)[LABELS]
    np.testing.assert_array_equal(found.success, np.where(own, left, only))
    assert found.success.sum() > 20


@pytest.mark.parametrize(
    ("method", "reached"),
    [
        (Minimal(steps=2, search=2), np.zeros((3, 3), bool)),
        (PGD(0.1, steps=2, restarts=1), np.zeros((3, 3), bool)),
        (Faithful(steps=2), [[False] * 3, [True, True, False], [True, False, True]]),
    ],
)
def test_a_constant_net_is_moved_by_nobody_and_argmax_is_the_first_class(method, reached):
    def constant(params, images):
        return jnp.zeros((len(images), 3)) + params

    found = generate.generate(constant, np.float32(2), IMAGES[:3], np.arange(3), methods=(method,))
    np.testing.assert_array_equal(found.success, reached)


@pytest.mark.parametrize("sizes", [(), (5, 5), (10, 25), (5, 0)])
def test_sizes_that_do_not_descend_are_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes: .* do not descend to 1 or more"):
        _ = generate.generate(linear_nets.logits, PARAMS, IMAGES, LABELS, sizes=sizes)


@pytest.fixture
def well_compiled():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def test_a_case_has_the_same_gradient_anywhere_in_its_group(well_compiled):
    """With groups of 20 some of these differ in their last bits, and devices would disagree."""
    model = ResNet(widths=(16, 32, 64), residual=(False, True, True), mean=(0.1307,), std=(0.3081,))
    images = np.random.default_rng(0).random((generate.SIZES["cpu"][0], 28, 28, 1), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]
    classify = generate.frozen(lambda params, x: model.apply({"params": params}, x), params)

    def lead(image):
        logits = classify(image, None)
        return logits[3] - logits[5]

    gradient = jax.jit(
        jax.vmap(jax.grad(lead)),
        compiler_options=sharding.compiler_options(),
    )
    found = np.asarray(gradient(images))
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(images))
        np.testing.assert_array_equal(gradient(images[order]), found[order])
