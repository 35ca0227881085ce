"""Lists the data sets on this machine, or describes one of them.

python experiments/inspect_data.py --name=cifar10 --grid=cifar10.png

--name=NAME       a data set of TFDS, or shapes or digits [list all]
--dir=DIR         TFDS's data folder; without --name, a folder of pictures or an .npz
--grid=FILE       PNG file for the first ten training images of each class
"""

from cnnjax import cli
from cnnjax.errors import InputError

SCRIPTS_OWN = ("cifar10", "mnist")


def run(arguments: list[str], name: str, dir: str, grid: str) -> None:
    """Prints the data sets that exist, or the contents of the named one.

    Raises:
        InputError: the data set is missing, or the flags contradict each other.
    """
    del arguments  # there are none
    # Imported here, so that --help does not wait for them.
    from cnnjax.data.sources import download
    from printing import datasets, present

    searched = present.roots(dir)
    holds_sets = dir and present.find(searched[0])
    if not name and (not dir or holds_sets):
        if grid:
            raise InputError("got --grid without a set, need one; name it with --name")
        found = []
        for root in searched:
            try:
                found += present.find(root)
            except OSError as error:  # such as a folder that may not be searched
                print(f"passed over: {root} ({error.strerror})")
        datasets.print_found(found)
        print(f"looked in {', '.join(map(str, searched))}")
        names = {one.name.partition(":")[0] for one in found}
        for missing in sorted(set(SCRIPTS_OWN) - names):
            print(f"missing: {missing}, {download.where_to_get(missing, searched[0])}")
        return
    dataset = present.load(name, dir)
    datasets.print_dataset(dataset)
    if grid:
        from printing import classes

        image = classes.drawn(dataset)
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
