"""What the attacks on the CNN in PyTorch share: the net with given weights, and its cells.

The net is in the layout that PyTorch's convolutions prefer on many CPUs, and no gradient of its
kernels is asked for.
"""

from collections.abc import Mapping
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


def announce(model: Counted, sample: contest.Sample, **versions: str) -> None:
    with torch.no_grad():
        logits = torch.cat([model(to_torch(part)) for part in np.array_split(sample.probes, 10)])
    contest.announce(
        versions={"torch": torch.__version__, **versions},
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        difference=contest.difference(logits.numpy(), sample),
    )


def gather(labels: np.ndarray, targeted: torch.Tensor, own: torch.Tensor) -> np.ndarray:
    """Cells [N, 10, ...] of those whose target is another class, in order, and of the others."""
    cells = np.empty((len(labels), 10, *own.shape[1:]), own.numpy().dtype)
    cells[contest.targeted_cells(labels)] = targeted.numpy()
    cells[np.arange(len(labels)), labels] = own.numpy()
    return cells
