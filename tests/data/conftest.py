import pytest

from cnnjax.data.tensorflow_import import import_tensorflow


@pytest.fixture(scope="session")
def write_tfds():
    """Returns (root, name=, version=, features=, **splits) -> a set, as TFDS has it.

    Each split is {feature: array}; the set's folder is returned.
    """
    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    kinds = tfds.features

    def write_tfds(root, name="mine", version="1.0.0", features=None, **splits):
        features = features or {
            "image": kinds.Image(shape=(4, 5, 3)),
            "label": kinds.ClassLabel(names=["ant", "bee"]),
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            version,
            data_dir=root,
            features=kinds.FeaturesDict(features),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices(arrays)
                for split, arrays in splits.items()
            },
            disable_shuffling=True,
        )
        return root / name / version

    return write_tfds
