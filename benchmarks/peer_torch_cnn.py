"""The CNNs in eager PyTorch: resident tensors, batches indexed by a permutation.

Written to be fast within that: no DataLoader, the fused optimiser, the pool before the ReLU, which
works in place, and of the metrics only the running loss. With --channels_last images and kernels
have the layout that its convolutions prefer on many CPUs.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest


def make_net(net: Mapping[str, Any]) -> torch.nn.Sequential:
    height, width, channels = contest.SHAPES[net["dataset"]]
    lost = 0 if net["padding"] == "same" else 2
    layers: list[torch.nn.Module] = []
    for filters, pool, rate in zip(net["filters"], net["pools"], net["dropouts"], strict=True):
        layers.append(torch.nn.Conv2d(channels, filters, 3, padding=net["padding"]))
        layers += [torch.nn.MaxPool2d(pool)] if pool > 1 else []
        layers.append(torch.nn.ReLU(inplace=True))
        layers += [torch.nn.Dropout(rate)] if rate else []
        height, width, channels = (height - lost) // pool, (width - lost) // pool, filters
    layers.append(torch.nn.Flatten())
    inputs = height * width * channels
    for units, rate in zip(net["dense"], net["dense_dropouts"], strict=True):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU(inplace=True)]
        layers += [torch.nn.Dropout(rate)] if rate else []
        inputs = units
    model = torch.nn.Sequential(*layers, torch.nn.Linear(inputs, contest.CLASSES[net["dataset"]]))
    for layer in model:
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return model


def lay_out(images: torch.Tensor, options: argparse.Namespace) -> torch.Tensor:
    """Images as [N, C, H, W]: as they are kept, or a view of [N, H, W, C]."""
    return images.permute(0, 3, 1, 2) if options.channels_last else images


def make_steps(
    model: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    net: Mapping[str, Any],
    options: argparse.Namespace,
) -> Callable[[], object]:
    """A turn of some steps of training."""
    optimizer = torch.optim.Adam(model.parameters(), net["learning_rate"], eps=1e-7, fused=True)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield from torch.randperm(len(images)).split(net["batch_size"])

    endless = batches()

    def turn() -> float:
        loss_sum = torch.zeros(())
        for indices in itertools.islice(endless, options.count):
            optimizer.zero_grad()
            logits = model(lay_out(images[indices], options))
            loss = torch.nn.functional.cross_entropy(logits, labels[indices])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(indices)
        return float(loss_sum)

    return turn


def make_gradients(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, count: int
) -> Callable[[], object]:
    """A turn that moves the images along the sign of their gradient, `count` times."""
    _ = model.eval().requires_grad_(False)
    moved = images

    def turn() -> torch.Tensor:
        nonlocal moved
        for _ in range(count):
            _ = moved.requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(moved), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() - contest.STEP * gradient.sign()
        return moved

    return turn


def main(argv: Sequence[str]) -> None:
    options = contest.parse_cnn(argv, "channels_last")
    net = options.net
    torch.manual_seed(0)
    images, labels = map(torch.from_numpy, contest.read_pictures(net["dataset"], options.data_dir))
    model = make_net(net)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    else:
        images = images.permute(0, 3, 1, 2).contiguous()
    if options.work == "gradient":
        few = lay_out(images[: contest.ATTACKED], options), labels[: contest.ATTACKED]
        turn = make_gradients(model, *few, options.count)
    else:
        turn = make_steps(model, images, labels, net, options)
    contest.announce(
        versions={"torch": torch.__version__},
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    contest.take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1:])
