"""The operations of `benchmarks.layers_cnn` in eager PyTorch, each for some turns, in order."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest


def make_call(row: Mapping[str, Any]) -> Callable[[], object]:
    """One direction of one layer, on random numbers; tensors in the default layout."""
    kind, direction = row["kind"], row["direction"]
    if kind == "dense":
        images, kernel = torch.randn(row["images"]), torch.randn(row["kernel"])
        cotangent = images @ kernel
        return {
            "forward": lambda: images @ kernel,
            "kernel": lambda: images.T @ cotangent,
            "images": lambda: cotangent @ kernel.T,
        }[direction]
    batch, height, width, channels = row["images"]
    images = torch.randn(batch, channels, height, width)
    if kind == "pool":
        pool = torch.nn.functional.max_pool2d
        if direction == "forward":
            return lambda: pool(images, 2)
        _ = images.requires_grad_()
        cotangent = pool(images, 2).detach()
        return lambda: torch.autograd.grad(pool(images, 2), images, cotangent)
    rows, columns, _, filters = row["kernel"]
    kernel, padding = torch.randn(filters, channels, rows, columns), row["padding"]
    cotangent = torch.nn.functional.conv2d(images, kernel, padding=padding)
    around = 0 if padding == "valid" else rows // 2
    gradients = torch.nn.grad
    return {
        "forward": lambda: torch.nn.functional.conv2d(images, kernel, padding=padding),
        "kernel": lambda: gradients.conv2d_weight(images, kernel.shape, cotangent, padding=around),
        "images": lambda: gradients.conv2d_input(images.shape, kernel, cotangent, padding=around),
    }[direction]


def main(argv: Sequence[str]) -> None:
    options = contest.parse_layers(argv)
    contest.announce(
        versions={"torch": torch.__version__},
        threads=torch.get_num_threads(),
    )
    for row in options.rows:
        call = make_call(row)
        for _ in range(options.turns):
            contest.wait()
            began = time.perf_counter()
            for _ in range(options.iterations):
                _ = call()
            contest.report(time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1:])
