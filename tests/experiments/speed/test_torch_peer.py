"""A step of PyTorch as one CUDA graph, with a stand-in for PyTorch's CUDA."""

import contextlib
import types

from speed import torch_peer


def stand_in(done):
    """Returns a `torch` whose graph notes when it is captured and replayed."""

    class Graph:
        def replay(self):
            done.append("replay")

    @contextlib.contextmanager
    def graph(captured, capture_error_mode):
        done.append("capture")
        yield
        done.append("captured")

    stream = types.SimpleNamespace(wait_stream=lambda other: done.append("wait"))
    cuda = types.SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda chosen: contextlib.nullcontext(),
        CUDAGraph=Graph,
        graph=graph,
    )
    return types.SimpleNamespace(cuda=cuda)


def test_a_step_is_captured_once_and_what_that_took_is_undone() -> None:
    done = []

    def work():
        done.append("work")
        return len(done)

    replay = torch_peer._captured(stand_in(done), work, lambda: done.append("undo"))
    assert not done  # nothing compiles before the first call
    first = replay()
    warm = ["wait", *["work"] * torch_peer.WARM_UP, "wait"]
    assert done == [*warm, "capture", "work", "captured", "undo", "replay"]
    # The result is the captured tensor, which every replay overwrites.
    assert replay() == first == len(warm) + 2
    assert done[-2:] == ["replay"] * 2
