"""CIFAR-10 and CIFAR-100 as they are published: files, digests, classes.

Sources: the sets' page, https://www.cs.toronto.edu/~kriz/cifar.html (MD5 of the binary
files, from which their SHA-256 were computed); TFDS's list of checksums (the binary
archives); torchvision (MD5 of the pickled files).
"""

import dataclasses
from collections.abc import Mapping

COUNTS = {"train": 50_000, "test": 10_000}
SIDE = 32


@dataclasses.dataclass(frozen=True)
class Form:
    """A set's files in one of the two forms of its page.

    Attributes:
        folder: name of the folder that holds them.
        archives: names of the archive that holds this folder.
        algorithm: of the digests, for `hashlib`.
        digests: split -> file name -> digest (hex), in the official order; "" where
            none is published.
    """

    folder: str
    archives: tuple[str, ...]
    algorithm: str
    digests: Mapping[str, dict[str, str]]

    def names(self, *, with_test: bool = True) -> list[str]:
        """Returns the names of the files of both splits, or of the training split."""
        splits = ("train", "test") if with_test else ("train",)
        return [name for split in splits for name in self.digests[split]]


@dataclasses.dataclass(frozen=True)
class Published:
    """One of the two sets.

    Attributes:
        name: TFDS's name.
        class_names: in the order of the labels.
        url: address of the binary archive.
        size: bytes of the binary archive.
        sha256: digest (hex) of the binary archive.
        binary: records of `label_bytes` bytes, the last of which is the label, and a
            red, a green and a blue plane.
        pickled: dicts of Python's `pickle` with `data` and `label_key`.
        hub: name on the Hugging Face hub, and there the folder of its Parquet files,
            which have a column `label_column`.
    """

    name: str
    class_names: tuple[str, ...]
    url: str
    size: int
    sha256: str
    binary: Form
    label_bytes: int
    pickled: Form
    label_key: str
    hub: tuple[str, str]
    label_column: str


CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR10_BATCHES = (  # SHA-256 of data_batch_1.bin to data_batch_5.bin
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
)

CIFAR10 = Published(
    name="cifar10",
    class_names=tuple(CIFAR10_CLASSES.split()),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    binary=Form(
        "cifar-10-batches-bin",
        ("cifar-10-binary.tar.gz",),
        "sha256",
        {
            "train": {
                f"data_batch_{i}.bin": digest
                for i, digest in enumerate(CIFAR10_BATCHES, start=1)
            },
            "test": {
                "test_batch.bin": "8e2eb146ae340b09e24670f29cabc632"
                "6dba54da8789dab6768acf480273f65b"
            },
        },
    ),
    label_bytes=1,
    pickled=Form(
        "cifar-10-batches-py",
        ("cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz"),
        "md5",
        {
            "train": {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
        },
    ),
    label_key="labels",
    hub=("uoft-cs/cifar10", "plain_text"),
    label_column="label",
)

CIFAR100 = Published(
    name="cifar100",
    class_names=tuple(CIFAR100_CLASSES.split()),
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    size=168_513_733,
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    binary=Form(
        "cifar-100-binary",
        ("cifar-100-binary.tar.gz",),
        "sha256",
        {"train": {"train.bin": ""}, "test": {"test.bin": ""}},
    ),
    label_bytes=2,
    pickled=Form(
        "cifar-100-python",
        ("cifar-100-python.tar.gz",),
        "md5",
        {
            "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
            "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        },
    ),
    label_key="fine_labels",
    hub=("uoft-cs/cifar100", "cifar100"),
    label_column="fine_label",
)

SETS = {published.name: published for published in (CIFAR10, CIFAR100)}
