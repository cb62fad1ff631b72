"""Makes net.keras in the current folder: the same task, learnt by a Keras model from learn.npz.

For a Python that has TensorFlow.
"""

import keras
import numpy as np

EPOCHS, BATCH = 6, 50


def main() -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((1, 8, 8), name="image"),
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(10, name="scores"),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    with np.load("learn.npz") as data:
        model.fit(data["X"], data["y"], batch_size=BATCH, epochs=EPOCHS, verbose=0)
    model.save("net.keras")


if __name__ == "__main__":
    main()
