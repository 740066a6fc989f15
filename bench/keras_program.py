"""The brief's Keras program, with a clock. Started by keras_reference.py, in an interpreter that has Keras 3.

python bench/keras_program.py DATA.npz EPOCHS RESULT.json
"""

import json
import sys
import time

import keras
import numpy as np

data_path, epochs, result_path = sys.argv[1:]
with np.load(data_path) as data:
    x_train = data["train"].astype("float32") / 255.0
    x_validation = data["validation"].astype("float32") / 255.0

keras.utils.set_random_seed(0)
image = keras.Input(shape=(x_train.shape[1],))
encoded = keras.layers.Dense(128, activation="relu")(image)
decoded = keras.layers.Dense(x_train.shape[1], activation="sigmoid")(encoded)
autoencoder = keras.Model(image, decoded)
# 'adadelta' alone means learning rate .001 in Keras 3, which does not train; 1.0 was the default when it was written.
autoencoder.compile(optimizer=keras.optimizers.Adadelta(learning_rate=1.0), loss="binary_crossentropy")

history: list[list[float]] = []


def note(_: int, logs: dict[str, float]) -> None:
    history.append([time.perf_counter() - start, float(logs["val_loss"])])


start = time.perf_counter()
autoencoder.fit(
    x_train,
    x_train,
    epochs=int(epochs),
    batch_size=256,
    shuffle=True,
    validation_data=(x_validation, x_validation),
    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)],
    verbose=0,
)
with open(result_path, "w", encoding="utf-8") as file:
    json.dump({"keras": keras.__version__, "backend": keras.backend.backend(), "history": history}, file)
