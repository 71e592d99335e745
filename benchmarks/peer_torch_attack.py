"""What the attacks on the CNN in PyTorch share: the net with given weights, and its cells.

The net is in the layout that PyTorch's convolutions prefer on many CPUs, and no gradient of its
kernels is asked for.

On the board an attack hands in, of all images that it gave the net, the one that reaches its class
on bytes with the smallest noise: every image is rounded and judged once more, without a gradient,
as ours does with every candidate. Beside it the one with the smallest noise before rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_cnn import make_net


class Counted(torch.nn.Module):
    """Logits of images [N, C, H, W]; counts the rows whose gradient will be asked for."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net
        self.gradients = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            self.gradients += len(images)
        return self.net(images)


class Tracked(torch.nn.Module):
    """The net, which keeps for each row [M] of a call the best image that it has seen.

    best: on bytes.  floats: as it was given.
    """

    def __init__(
        self, model: Counted, clean: torch.Tensor, classes: torch.Tensor, *, targeted: bool
    ) -> None:
        super().__init__()
        self.model, self.clean, self.classes, self.targeted = model, clean, classes, targeted
        self.best, self.distance = clean.clone(), torch.full((len(clean),), np.inf)
        self.floats, self.exact = clean.clone(), torch.full((len(clean),), np.inf)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        with torch.no_grad():
            given = images.detach()
            seen = torch.round(given.clamp(0, 1) * 255) / 255
            self._keep(seen, self.model.net(seen), self.best, self.distance)
            self._keep(given, logits, self.floats, self.exact)
        return logits

    def _keep(
        self, seen: torch.Tensor, logits: torch.Tensor, best: torch.Tensor, least: torch.Tensor
    ) -> None:
        """Put those of the images that are successes nearer than `least` into `best`."""
        distance = (seen - self.clean).flatten(1).norm(dim=1)
        nearer = ((logits.argmax(1) == self.classes) == self.targeted) & (distance < least)
        best[nearer], least[nearer] = seen[nearer], distance[nearer]


Search = Callable[[Tracked], object]


def track(model: Counted, sample: contest.Sample, reach: Search, leave: Search) -> dict[str, Any]:
    """What searches give the net: one towards the other classes, one away from the own class.

    Each is given the net with the rows of its call, which are `clean` and `classes`.
    """
    images, labels = to_torch(sample.images), torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))
    model.gradients = 0
    targeted = Tracked(model, images[rows], targets, targeted=True)
    _ = reach(targeted)
    own = Tracked(model, images, labels, targeted=False)
    _ = leave(own)
    return {
        "images": gather(sample.labels, targeted.best, own.best).transpose(0, 1, 3, 4, 2),
        "floats": gather(sample.labels, targeted.floats, own.floats).transpose(0, 1, 3, 4, 2),
        "gradients": model.gradients,
    }


def load_net(net: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Counted:
    """The net with these weights, ready to be attacked."""
    made = make_net(net)
    layers = [layer for layer in made if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    names = [f"conv_{i}" for i in range(len(net["filters"]))]
    names += [*(f"dense_{i}" for i in range(len(net["dense"]))), "output"]
    channels = net["filters"][-1]
    for name, layer in zip(names, layers, strict=True):
        kernel = weights[f"{name}/kernel"]
        if kernel.ndim == 4:
            kernel = kernel.transpose(3, 2, 0, 1)
        else:
            if name == "dense_0":  # rows, columns, channels -> channels, rows, columns
                pixels = kernel.reshape(-1, channels, kernel.shape[1])
                kernel = pixels.transpose(1, 0, 2).reshape(kernel.shape)
            kernel = kernel.T
        layer.weight.data = torch.tensor(kernel)
        layer.bias.data = torch.tensor(weights[f"{name}/bias"])
    made = made.requires_grad_(False).to(memory_format=torch.channels_last)
    return Counted(made).eval()


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Images [N, H, W, C] uint8 as [N, C, H, W] float32 in [0, 1]."""
    return torch.from_numpy(contest.as_floats(images)).permute(0, 3, 1, 2)


Attack = Callable[[Counted, contest.Sample, Mapping[str, Any]], Mapping[str, Any]]


def compete(argv: Sequence[str], attack: Attack, **versions: str) -> None:
    """Be the paced contestant that attacks the net with the setting of each turn."""
    options = contest.parse_attack(argv)
    _ = torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    sample, weights = contest.read_attacked(options.directory)
    model = load_net(options.net, weights)
    with torch.no_grad():
        logits = torch.cat([model(to_torch(part)) for part in np.array_split(sample.probes, 10)])
    contest.announce(
        versions={"torch": torch.__version__, **versions},
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        difference=contest.difference(logits.numpy(), sample),
    )
    contest.take_attacks(options, lambda setting: attack(model, sample, setting))


def gather(labels: np.ndarray, targeted: torch.Tensor, own: torch.Tensor) -> np.ndarray:
    """Cells [N, 10, ...] of those whose target is another class, in order, and of the others."""
    cells = np.empty((len(labels), 10, *own.shape[1:]), own.numpy().dtype)
    cells[contest.targeted_cells(labels)] = targeted.numpy()
    cells[np.arange(len(labels)), labels] = own.numpy()
    return cells
