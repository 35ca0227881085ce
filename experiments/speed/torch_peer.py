"""The networks in PyTorch, in the layout `channels_last`, its fastest for convolutions.

On a GPU they also run compiled, and compiled as one CUDA graph, in TF32 and bfloat16.
PyTorch is not a dependency.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnjax.errors import InputError
from cnnjax.runtime import backend
from speed.peer import Job, Peer

# Runs before a capture: they compile, choose cuDNN's algorithms and make Adam's state.
WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class _How:
    """How a step is run.

    Attributes:
        device: "cpu" or "cuda".
        fused: whether Adam is one kernel, PyTorch's fastest but not its default on CPU.
        half: whether it computes in bfloat16.
        mode: of `torch.compile`; "" does not compile.
        graph: whether the whole step, Adam included, is captured as one CUDA graph.
    """

    device: str
    fused: bool = True
    half: bool = False
    mode: str = ""
    graph: bool = False


def make(job: Job) -> list[Peer]:
    """Returns the peers: on a CPU eager with the default and with the fused Adam.

    On a GPU they are, in TF32 and in bfloat16: eager; with loss and gradients compiled;
    and with the whole of that step as one CUDA graph. The mode "reduce-overhead" makes
    graphs of the compiled parts alone, so that more is left to launch. "max-autotune"
    also tries many kernels for each product and convolution, which takes minutes.

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
            _peer(torch, job, "PyTorch channels_last", _How("cpu", fused=False)),
            _peer(torch, job, "PyTorch channels_last, fused Adam", _How("cpu")),
        ]
    # TF32 as in JAX: for products by this, for cuDNN's convolutions by default.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    best = "max-autotune-no-cudagraphs"
    return [
        _peer(
            torch,
            job,
            f"PyTorch {'bf16' if half else 'TF32'} {name}",
            _How("cuda", half=half, mode=mode, graph=graph),
        )
        for half in (False, True)
        for name, mode, graph in (
            ("eager", "", False),
            ("compiled", "default", False),
            ("compiled, CUDA graph", "default", True),
            ("compiled max-autotune, CUDA graph", best, True),
        )
    ]


def _peer(torch: Any, job: Job, name: str, how: _How) -> Peer:
    device = how.device
    params = {
        layer: [_weight(torch, weights["kernel"], device), _put(torch, weights, device)]
        for layer, weights in job.params.items()
    }
    leaves = [leaf for pair in params.values() for leaf in pair]
    optimizer = torch.optim.Adam(
        leaves, job.learning_rate, fused=how.fused, capturable=how.graph
    )
    images = torch.from_numpy(job.image).permute(0, 3, 1, 2).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(job.label).long().to(device)
    network = _cifar if job.network == "CifarCNN" else _simple
    functional = torch.nn.functional

    def precision() -> Any:
        if not how.half:
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
            return network(functional, params, images, 1.0).float()

    if how.mode:
        loss, logits = (_compiled(torch, part, how.mode) for part in (loss, logits))

    def step() -> Any:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    if how.graph:
        step = _captured(torch, step, _restart(torch, optimizer, leaves))
        logits = _captured(torch, logits, lambda: None)

    def train(steps: int) -> float:
        for _ in range(steps):
            value = step()
        return float(value)  # waits for everything that the GPU was given before

    def forward() -> np.ndarray:
        host: np.ndarray = logits().cpu().numpy()
        return host

    return Peer(name, forward, train, how.half, "autotune" in how.mode)


def _compiled(torch: Any, function: Callable[[], Any], mode: str) -> Callable[[], Any]:
    # All peers share this function's code, of which PyTorch compiles eight versions and
    # then runs the others uncompiled; with `fullgraph` it would at least fail.
    torch._dynamo.config.recompile_limit = 100
    compiled: Callable[[], Any] = torch.compile(
        function, mode=mode, dynamic=False, fullgraph=True
    )
    return compiled


def _restart(torch: Any, optimizer: Any, leaves: list[Any]) -> Callable[[], None]:
    """Returns a function that puts weights and Adam's state back, in place."""
    first = [leaf.detach().clone() for leaf in leaves]

    def restart() -> None:
        with torch.no_grad():
            for leaf, value in zip(leaves, first, strict=True):
                leaf.copy_(value)
            for state in optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()

    return restart


def _captured(
    torch: Any, work: Callable[[], Any], undo: Callable[[], None]
) -> Callable[[], Any]:
    """Returns `work` as one CUDA graph, which its first call captures.

    `undo` takes back what the runs before the capture have changed. A result is
    overwritten by the next call.

    Source: PyTorch's notes on CUDA graphs, "Whole-network capture".
    """
    graph: Any = None
    result: Any = None

    def replay() -> Any:
        nonlocal graph, result
        if graph is None:
            stream = torch.cuda.Stream()  # what runs on the default one is not captured
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    work()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # JAX's threads may ask for memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = work()
            undo()
        graph.replay()
        return result

    return replay


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
