"""Trains boosted trees. A program for a Python that has XGBoost and LightGBM, not a module of tests.

Called as ``python tree_models.py FOLDER``. Writes models, and ``answers.npz`` with their inputs and
predictions by the name of the file.
"""

import sys
from pathlib import Path

import lightgbm
import numpy as np
import xgboost

ROUNDS = 12


def main(folder: Path) -> None:
    random = np.random.default_rng(2)
    inputs = random.normal(size=(600, 5)).astype(np.float32)
    inputs[:, 4] = np.floor(inputs[:, 4] * 3)
    wave = inputs[:, 0] + np.sin(2 * inputs[:, 1]) + 0.2 * inputs[:, 4]
    targets = {
        "classes": np.digitize(wave, [-0.7, 0.7]),
        "two": (wave > 0).astype(int),
        "value": 40 + 10 * wave,
    }
    answers = {"X": inputs}
    for name, target in targets.items():
        trees = xgboost.XGBRegressor if name == "value" else xgboost.XGBClassifier
        model = trees(n_estimators=ROUNDS, max_depth=4, n_jobs=1).fit(inputs, target)
        for ending in ("ubj", "json"):
            model.save_model(folder / f"{name}.{ending}")
            answers[f"{name}.{ending}"] = model.get_booster().predict(xgboost.DMatrix(inputs))
        leaves = lightgbm.LGBMRegressor if name == "value" else lightgbm.LGBMClassifier
        light = leaves(n_estimators=ROUNDS, n_jobs=1, verbose=-1).fit(inputs, target)
        light.booster_.save_model(folder / f"{name}.txt")
        answers[f"{name}.txt"] = light.booster_.predict(inputs)
    # A linear model in the leaves, which the converter leaves out without a word.
    data = lightgbm.Dataset(inputs, targets["value"], params={"linear_tree": True, "verbose": -1})
    linear = lightgbm.train(
        {"objective": "regression", "linear_tree": True, "verbose": -1, "num_threads": 1}, data, 5
    )
    linear.save_model(folder / "linear.txt")
    np.savez(folder / "answers.npz", **answers)


main(Path(sys.argv[1]))
