"""Shows what data sets are on this machine, and what is in one that is named.

python experiments/inspect_data.py --name=cifar10 --grid=cifar10.png
"""

from cnnjax import cli
from cnnjax.errors import InputError

SCRIPTS_OWN = ("cifar10", "mnist")

USAGE = {
    "name": "a set of TFDS, or shapes or digits",
    "dir": "TFDS's data folder; without --name pictures, or an .npz file",
    "grid": "a PNG for the first ten training pictures of each class",
}


def run(given: dict[str, str]) -> None:
    """Prints what there is, or what is in the set that is named.

    Raises:
        InputError: it is not there, or the flags do not go together.
    """
    # Here and not above, so that --help need not wait for them.
    from PIL import Image

    from cnnjax.data import download, inspection
    from cnnjax.reporting import data_tables

    name, directory = given["name"], given["dir"]
    searched = inspection.roots(directory)
    holds_sets = directory and inspection.find(searched[0])
    if not name and (not directory or holds_sets):
        if given["grid"]:
            raise InputError("got --grid without a set, need one; name it with --name")
        found = [one for root in searched for one in inspection.find(root)]
        data_tables.print_found(found)
        print(f"looked in {', '.join(map(str, searched))}")
        present = {one.name.partition(":")[0] for one in found}
        for missing in sorted(set(SCRIPTS_OWN) - present):
            print(f"missing: {missing}, {download.where_to_get(missing, searched[0])}")
        return
    dataset = inspection.load(name, directory)
    data_tables.print_dataset(dataset)
    if given["grid"]:
        shown = inspection.class_grid(dataset)
        image = Image.fromarray(shown.squeeze(-1) if shown.shape[-1] == 1 else shown)
        try:
            image.save(given["grid"], "PNG")
        except OSError as error:
            raise InputError(
                f"got --grid={given['grid']}, need a file that can be written"
                f" ({error.strerror}); name another"
            ) from error
        print(f"pictures: {given['grid']}")


if __name__ == "__main__":
    cli.main_with_flags(run, doc=__doc__, usage=USAGE)
