"""Makes Keras models. A program for a Python that has TensorFlow, not a module of tests.

Called as ``python keras_models.py FOLDER``. Writes models in three formats, and ``answers.npz``.
"""

import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

import keras
import numpy as np
import tensorflow as tf


class Reader(tf.Module):
    """Reads a file of the machine when it is called."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        size = tf.strings.length(tf.io.read_file("/etc/hostname"))
        return {"y": x + tf.cast(size, tf.float32)}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 1), name="image"),
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax", name="scores"),
    ])  # fmt: skip
    images = np.random.default_rng(1).uniform(size=(5, 8, 8, 1)).astype(np.float32)
    np.savez(folder / "answers.npz", X=images, y=np.asarray(model(images)))
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.export(folder / "saved", format="tf_saved_model", verbose=False)
    code = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x * 2)])
    code.save(folder / "lambda.keras")
    code.save(folder / "lambda.h5")
    reader = Reader()
    tf.saved_model.save(reader, folder / "reader", signatures=reader.serve)


main(Path(sys.argv[1]))
