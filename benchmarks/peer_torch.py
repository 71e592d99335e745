"""The depth study in eager PyTorch: resident tensors, batches indexed by a permutation.

Written to be fast within that: no DataLoader, the fused optimiser, and of the metrics only the
running loss.
"""

import sys
import time
from collections.abc import Sequence

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest

ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}


def make_net(activation: str, depth: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for i in range(depth):
        layers += [torch.nn.Linear(32 if i else 784, 32), ACTIVATIONS[activation]()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(32, 10))
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return net


def main(argv: Sequence[str]) -> None:
    options = contest.parse(argv, "one_thread")
    if options.one_thread:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    tensors = [torch.from_numpy(array) for array in contest.read_digits(options.data_dir)]
    train_images, train_labels, test_images, test_labels = tensors
    net = make_net(*contest.parse_net(options.net))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, fused=True)
    if options.paced:
        versions = {"torch": torch.__version__}
        contest.announce(versions=versions, threads=torch.get_num_threads())
    for _ in range(options.epochs):
        if options.paced:
            contest.wait()
        began = time.perf_counter()
        loss_sum = torch.zeros(())
        for indices in torch.randperm(len(train_images)).split(64):
            optimizer.zero_grad()
            logits = net(train_images[indices])
            loss = torch.nn.functional.cross_entropy(logits, train_labels[indices])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(indices)
        _ = float(loss_sum)
        if options.paced:
            contest.report(time.perf_counter() - began)
    if not options.paced:
        with torch.inference_mode():
            correct = (net(test_images).argmax(1) == test_labels).float().mean()
        contest.announce(test_accuracy=float(correct))


if __name__ == "__main__":
    main(sys.argv[1:])
