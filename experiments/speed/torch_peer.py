"""The networks in PyTorch, in the layout `channels_last`, its fastest for convolutions.

On a GPU they also run compiled, in TF32 and bfloat16. PyTorch is not a dependency.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnjax.errors import InputError
from cnnjax.runtime import backend
from speed.peer import Job, Peer

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


def make(job: Job) -> list[Peer]:
    """Returns the peers: on a CPU eager with the default and with the fused Adam.

    On a GPU they are eager and with each mode of `torch.compile`, in TF32 and bfloat16.

    Raises:
        InputError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "got no PyTorch, need it to compare with; install torch==2.13.0 (the CPU"
            " build will do) into this environment"
        ) from error
    if not torch.cuda.is_available():
        torch.set_num_threads(backend.num_cores())
        return [
            _peer(torch, job, "cpu", "PyTorch channels_last", fused=False),
            _peer(torch, job, "cpu", "PyTorch channels_last, fused Adam"),
        ]
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    peers = []
    for half in (False, True):
        kind = f"PyTorch {'bf16' if half else 'TF32'}"
        peers.append(_peer(torch, job, "cuda", f"{kind} eager", half=half))
        for mode in COMPILE_MODES:
            name = f"{kind} compiled, {mode}"
            peers.append(_peer(torch, job, "cuda", name, half=half, mode=mode))
    return peers


def _peer(
    torch: Any,
    job: Job,
    device: str,
    name: str,
    *,
    fused: bool = True,
    half: bool = False,
    mode: str = "",
) -> Peer:
    params = {
        layer: [_weight(torch, weights["kernel"], device), _put(torch, weights, device)]
        for layer, weights in job.params.items()
    }
    leaves = [leaf for pair in params.values() for leaf in pair]
    # The fused Adam is PyTorch's fastest, but not its default on a CPU.
    optimizer = torch.optim.Adam(leaves, job.learning_rate, fused=fused)
    images = torch.from_numpy(job.image).permute(0, 3, 1, 2).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(job.label).long().to(device)
    network = _cifar if job.network == "CifarCNN" else _simple
    functional = torch.nn.functional

    def precision() -> Any:
        if not half:
            return contextlib.nullcontext()
        return torch.autocast(device, torch.bfloat16)

    def loss() -> Any:
        with precision():
            logits = network(functional, params, images, job.keep_prob)
        value = functional.cross_entropy(logits.float(), labels)
        kernels = (params[layer][0] for layer in job.penalised)
        return value + job.l2 / 2 * sum((w * w).sum() for w in kernels)

    def logits() -> Any:
        with torch.no_grad(), precision():
            return network(functional, params, images, 1.0)

    if mode:
        loss, logits = torch.compile(loss, mode=mode), torch.compile(logits, mode=mode)

    def train() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    def forward() -> np.ndarray:
        host: np.ndarray = logits().float().cpu().numpy()
        return host

    return Peer(name, forward, train, half)


def _weight(torch: Any, kernel: np.ndarray, device: str) -> Any:
    """Returns a kernel in PyTorch's layout: HWIO as OIHW, [in, out] as [out, in]."""
    axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    # A copy, because the optimiser writes into it.
    tensor = torch.tensor(np.ascontiguousarray(kernel.transpose(axes)), device=device)
    if kernel.ndim == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    return tensor.requires_grad_()


def _put(torch: Any, weights: dict[str, np.ndarray], device: str) -> Any:
    return torch.tensor(weights["bias"], device=device).requires_grad_()


def _flatten(x: Any) -> Any:
    """Flattens in the order height, width, channels, as the dense weights expect it."""
    return x.permute(0, 2, 3, 1).flatten(1)


def _cifar(functional: Any, params: Any, x: Any, keep_prob: float) -> Any:
    relu: Callable[[Any], Any] = functional.relu

    def norm(x: Any) -> Any:
        # PyTorch divides alpha by the window size.
        return functional.local_response_norm(x, 9, alpha=0.001, beta=0.75, k=1.0)

    def pool(x: Any) -> Any:
        # The last window is cut off at the edge, as with TensorFlow's "SAME".
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    x = norm(pool(relu(functional.conv2d(x, *params["conv1"], padding=2))))
    x = pool(norm(relu(functional.conv2d(x, *params["conv2"], padding=2))))
    x = relu(functional.linear(_flatten(x), *params["local3"]))
    x = relu(functional.linear(x, *params["local4"]))
    return functional.linear(x, *params["logits"])


def _simple(functional: Any, params: Any, x: Any, keep_prob: float) -> Any:
    for layer in ("conv1", "conv2"):
        x = functional.relu(functional.conv2d(x, *params[layer], padding=2))
        x = functional.max_pool2d(x, 2, 2)
    x = functional.relu(functional.linear(_flatten(x), *params["fc1"]))
    if keep_prob < 1:
        x = functional.dropout(x, 1 - keep_prob)
    return functional.linear(x, *params["logits"])
