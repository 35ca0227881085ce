"""Opens a page on this machine where a network classifies pictures and drawn digits.

python experiments/demo.py

--workdir=DIR     folder of a run, or a .safetensors file [the networks that come
                  trained, for pictures and for digits]
--port=N          the page is at http://127.0.0.1:N [7860]

The page is served to this machine alone, works without a network connection and sends
nothing anywhere. It needs `pip install 'cnnjax[demo]'`. Ctrl-C ends it.
"""

from cnnjax import cli
from cnnjax.errors import InputError, MissingPackageError
from cnnjax.runtime import backend


def run(arguments: list[str], workdir: str, port: int) -> None:
    """Serves the page until it is stopped.

    Raises:
        MissingPackageError: Gradio is not installed.
        InputError: there is no such network, or the port is taken.
    """
    del arguments  # none are taken
    if not 1 <= port < 2**16:
        raise InputError(f"got --port={port}, need 1 to {2**16 - 1}; choose another")
    backend.start()
    # Imported here, so that --help waits neither for JAX nor for Gradio.
    try:
        from demonstration import page
    except ImportError as error:
        raise MissingPackageError(
            f"got no {error.name}, which the page needs; pip install 'cnnjax[demo]'"
        ) from error
    from cnnjax.network import load_network

    sources = [workdir] if workdir else ["cifar10", "mnist"]
    page.serve([load_network(source) for source in sources], port)


if __name__ == "__main__":
    cli.main_with(run, doc=__doc__, options={"workdir": "", "port": 7860})
