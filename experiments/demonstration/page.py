"""The page: pictures and drawings in, classes and what the network saw out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before Gradio is imported, which otherwise asks its makers for news.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from cnnjax.data.sources import pictures
from cnnjax.errors import InputError
from cnnjax.network import Network
from demonstration.pictures import SIDE, like_mnist, looker

HOST = "127.0.0.1"
MAX_UPLOAD = 32 * 2**20  # bytes
CLASSES = 5
# Takes up the brush as soon as there is one; Gradio waits for the user to do it.
TAKE_BRUSH = """() => {
  const timer = setInterval(() => {
    const brush = document.querySelector("#drawing [aria-label=Brush]");
    if (brush) { clearInterval(timer); brush.click(); }
  }, 100);
}"""
# A browser that obeys it loads and sends nothing beyond this machine.
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"


def serve(networks: list[Network], port: int) -> None:
    """Serves the page at http://127.0.0.1:port until Ctrl-C.

    Raises:
        InputError: the port is taken.
    """
    page = make(networks)
    # Gradio first asks for its own page, which no proxy can reach.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            run_history=False,
            app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, _guarded)]},
        )
    except OSError as error:
        raise InputError(
            f"got --port={port}, which is taken on this machine; choose another"
        ) from error
    print(f"the page is at http://{HOST}:{port}; Ctrl-C ends it", flush=True)
    page.block_thread()


async def _guarded(request: Any, call_next: Callable[[Any], Any]) -> Any:
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def make(networks: list[Network]) -> gr.Blocks:
    """Returns the page, with a tab for each network."""
    with gr.Blocks(title="cnnjax", analytics_enabled=False) as page:
        gr.Markdown("# What does the network see?")
        for network in networks:
            draws = network.image_shape[2] == 1
            with gr.Tab("Draw a digit" if draws else "Classify a picture"):
                _tab(network, draws)
        page.load(js=TAKE_BRUSH)
    return page


def _tab(network: Network, draws: bool) -> None:
    look = looker(network)
    gr.Markdown(
        f"{type(network.model).__name__}, trained on {network.dataset}. It knows only"
        f" {', '.join(network.class_names[:20])}"
        f"{', ...' if len(network.class_names) > 20 else ''}."
    )
    with gr.Row():
        if draws:
            given: Any = gr.Sketchpad(
                label="draw here",
                canvas_size=(SIDE, SIDE),
                fixed_canvas=True,
                layers=False,
                brush=gr.Brush(default_size=18, colors=["#000000"], color_mode="fixed"),
                format="png",
                elem_id="drawing",
            )
        else:
            given = gr.Image(
                label="drop, choose or paste a picture",
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                height=SIDE + 40,
                elem_id="picture",
            )
            # `read_picture` opens the file, with its checks, and not Gradio.
            given.preprocess = lambda sent: sent and sent.path
        with gr.Column():
            classes = gr.Label(label="it says", num_top_classes=CLASSES)
            with gr.Row():
                seen, mattered = (
                    gr.Image(label=label, height=SIDE, buttons=[], interactive=False)
                    for label in ("what it sees", "what mattered most to it")
                )

    def answer(value: Any) -> tuple[Any, Any, Any]:
        try:
            image = _drawn(value, network) if draws else _opened(value, network)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        if image is None:
            return None, None, None
        return look(image)

    given.change(answer, given, [classes, seen, mattered], show_progress="minimal")


def _drawn(value: Any, network: Network) -> np.ndarray | None:
    if value is None or value.get("composite") is None:
        return None
    return like_mnist(value["composite"], network.image_shape[0])


def _opened(path: str | None, network: Network) -> np.ndarray | None:
    if path is None:
        return None
    try:
        return pictures.read_picture(Path(path), network.image_shape[0], "RGB")
    except InputError as error:
        # Where Gradio has put it says nothing to the reader.
        raise InputError(str(error).replace(path, Path(path).name)) from error
