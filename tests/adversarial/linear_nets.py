"""Linear classifiers, of which everything about the smallest noise is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog, minimize

from research.adversarial import loop

SHAPE = (8, 8, 1)
CLASSES = 5
GREY = np.full(SHAPE, 128, np.uint8)
TRACES = []


def logits(params, images):
    """images [B, H, W, C] in [0, 1] -> logits [B, K]; every tracing leaves its mark."""
    TRACES.append(images.shape)
    weights, bias = params
    return images.reshape(images.shape[0], -1) @ weights + bias[None]


def exact(params, images):
    """Logits [..., K] in float64 of bytes [..., H, W, C]."""
    weights, bias = (np.asarray(leaf, np.float64) for leaf in params)
    images = np.asarray(images)
    return images.reshape(*images.shape[:-3], -1) / 255 @ weights + bias


def exact_margin(params, image, actual, target):
    """Of one image of bytes, float64."""
    found = exact(params, image)
    above = found[target] - np.delete(found, target).max()
    return -above if target == actual else above


def draw(seed, *, count, classes=CLASSES):
    """Weights and bias, images and the classes that they are taken for.

    The first two images are black and white, of which a clip could swallow half the noise.
    """
    random = np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    params = (
        np.float32(random.normal(size=(size, classes))),
        np.float32(random.normal(size=classes)),
    )
    images = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    images[0], images[1] = 0, 255
    return params, images, np.argmax(exact(params, images), axis=1).astype(np.int32)


def smallest(params, image, actual, target, required, norm="l2"):
    """Norm of the smallest noise within the box that reaches the margin.

    By quadratic programs, and of linf and l1 by linear ones.
    """
    program = {"l2": _program, "linf": _least_radius, "l1": _least_sum}[norm]
    weights, bias = (np.asarray(leaf, np.float64) for leaf in params)
    clean = image.reshape(-1) / 255
    score = clean @ weights + bias
    others = [k for k in range(len(bias)) if k != target]
    if target == actual:  # any one of the others is enough
        return min(program(clean, [weights[:, k] - weights[:, actual]],
                            [score[k] - score[actual]], required) for k in others)  # fmt: skip
    rows = [weights[:, target] - weights[:, k] for k in others]
    return program(clean, rows, [score[target] - score[k] for k in others], required)


def _least_radius(clean, rows, now, required):
    """Of every value of the noise; the last variable of the program."""
    rows, now, each = np.array(rows), np.array(now), np.eye(len(clean))
    radius = -np.ones((len(clean), 1))
    above = np.hstack([-rows, np.zeros((len(rows), 1))])
    bounds = [*zip(-clean, 1 - clean, strict=True), (0, 1)]
    within = np.vstack([above, np.hstack([each, radius]), np.hstack([-each, radius])])
    limits = np.concatenate([now - required, np.zeros(2 * len(clean))])
    best = linprog(np.eye(1, len(clean) + 1, len(clean))[0], within, limits, bounds=bounds)
    return best.fun if best.success else np.inf


def _least_sum(clean, rows, now, required):
    """Of the values of the noise; what is added and what is taken away are variables apart."""
    rows, now = np.array(rows), np.array(now)
    bounds = [(0, most) for most in np.concatenate([1 - clean, clean])]
    best = linprog(np.ones(2 * len(clean)), np.hstack([-rows, rows]), now - required, bounds=bounds)
    return best.fun if best.success else np.inf


def _program(clean, rows, now, required):
    rows, now = np.array(rows), np.array(now)
    found = minimize(
        lambda noise: noise @ noise / 2,
        np.zeros(len(clean)),
        jac=lambda noise: noise,
        bounds=list(zip(-clean, 1 - clean, strict=True)),
        constraints={
            "type": "ineq",
            "fun": lambda noise: rows @ noise + now - required,
            "jac": lambda noise: rows,
        },
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 300},
    )
    return np.sqrt(2 * found.fun) if found.success else np.inf


def every_case(images, labels, classes=CLASSES):
    """Each image toward each class: cases [N x T] with keys of their own."""
    count = len(images) * classes
    return loop.Case(
        image=np.repeat(images, classes, axis=0),
        actual=np.repeat(labels, classes).astype(np.int32),
        target=np.tile(np.arange(classes, dtype=np.int32), len(images)),
        key=jax.random.split(jax.random.key(7), count),
    )


def one_of(tree, row):
    """Entry `row` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[row], tree)


def of_one(params):
    """The classifier as methods want it: of a single image, without noise of its own."""
    return lambda image, key: logits(params, jnp.asarray(image)[None])[0]


@functools.partial(jax.jit, static_argnames="sizes")
def attack(method, params, cases, sizes=None):
    """States of all cases after the method."""
    classify = of_one(params)
    states = jax.vmap(lambda case: method.start(classify, case, loop.no_progress(case)))(cases)
    return loop.run(method, classify, cases, states, sizes or (len(cases.actual),))


def check_claims(params, images, labels, found, required):
    """What is said of every case [N, T] is true of its bytes."""
    for n, t in np.ndindex(*found.success.shape):
        case = jax.tree.map(lambda leaf: np.asarray(leaf[n, t]), found)  # noqa: B023
        if not np.isfinite(case.best_margin):
            continue
        margin = exact_margin(params, case.best, labels[n], t)
        np.testing.assert_allclose(case.best_margin, margin, atol=1e-4)
        assert bool(case.success) == bool(case.best_margin >= required)
        if case.success:
            distance = np.linalg.norm(case.best / 255.0 - images[n] / 255.0)
            np.testing.assert_allclose(case.best_l2, distance, rtol=1e-5, atol=1e-7)
        last = exact_margin(params, case.last, labels[n], t)
        np.testing.assert_allclose(case.last_margin, last, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def step(method, params, bonus, case, state):
    """One step of a method; the logit of the target is `bonus` larger than the classifier's own."""

    def classify(image, key):
        wanted = jax.nn.one_hot(case.target, CLASSES, dtype=jnp.float32)
        return of_one(params)(image, key) + bonus * wanted

    return method.advance(classify, case, state, jnp.int32(0))


def follow(method, params, case, bonus=lambda steps: 0.0):
    """States before and after every step of a method until the case is finished."""
    states = [jax.tree.map(jnp.asarray, method.start(None, case, loop.no_progress(case)))]
    while states[-1].progress.running:
        taken = int(states[-1].progress.steps)
        states.append(step(method, params, jnp.float32(bonus(taken)), case, states[-1]))
    return states
