"""Shows what data sets are on this machine, and what is in one that is named.

python experiments/inspect_data.py --name=cifar10 --grid=cifar10.png

--name=NAME       a set of TFDS, or shapes or digits
--dir=DIR         TFDS's data folder; without --name pictures, or an .npz file
--grid=FILE       a PNG for the first ten training pictures of each class
"""

from cnnjax import cli
from cnnjax.errors import InputError

SCRIPTS_OWN = ("cifar10", "mnist")


def run(arguments: list[str], name: str, dir: str, grid: str) -> None:
    """Prints what there is, or what is in the set that is named.

    Raises:
        InputError: it is not there, or the flags do not go together.
    """
    del arguments  # none are taken
    # Here and not above, so that --help need not wait for them.
    from PIL import Image

    from cnnjax.data import inspection
    from cnnjax.data.sources import download
    from cnnjax.reporting import tables

    searched = inspection.roots(dir)
    holds_sets = dir and inspection.find(searched[0])
    if not name and (not dir or holds_sets):
        if grid:
            raise InputError("got --grid without a set, need one; name it with --name")
        found = [one for root in searched for one in inspection.find(root)]
        tables.print_found(found)
        print(f"looked in {', '.join(map(str, searched))}")
        present = {one.name.partition(":")[0] for one in found}
        for missing in sorted(set(SCRIPTS_OWN) - present):
            print(f"missing: {missing}, {download.where_to_get(missing, searched[0])}")
        return
    dataset = inspection.load(name, dir)
    tables.print_dataset(dataset)
    if grid:
        shown = inspection.class_grid(dataset)
        image = Image.fromarray(shown.squeeze(-1) if shown.shape[-1] == 1 else shown)
        try:
            image.save(grid, "PNG")
        except OSError as error:
            raise InputError(
                f"got --grid={grid}, need a file that can be written"
                f" ({error.strerror}); name another"
            ) from error
        print(f"pictures: {grid}")


if __name__ == "__main__":
    cli.main_with(run, doc=__doc__, options={"name": "", "dir": "", "grid": ""})
