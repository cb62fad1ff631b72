"""Logs models on an MLflow server. A program for a Python that has mlflow, not a module of tests.

Called as ``python mlflow_models.py URL MODEL.onnx``. Prints the run's id and the logged model's.
"""

import sys

import mlflow
import numpy as np
import onnx
from sklearn.linear_model import LogisticRegression


def main(url: str, path: str) -> None:
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("digits")
    with mlflow.start_run() as run:
        mlflow.log_params({"epochs": 5, "note": "x" * 900})
        mlflow.log_metrics({"accuracy": 0.5, "loss": 0.25})
        mlflow.log_metric("accuracy", 0.75, step=2)
        logged = mlflow.onnx.log_model(
            onnx.load(path), name="model", registered_model_name="digits"
        )
        inputs = np.random.default_rng(1).normal(size=(20, 3))
        pickled = LogisticRegression().fit(inputs, inputs[:, 0] > 0)
        mlflow.sklearn.log_model(
            pickled, name="pickled", serialization_format="cloudpickle",
        )  # fmt: skip
    mlflow.MlflowClient().set_registered_model_alias("digits", "champion", 1)
    print(run.info.run_id, logged.model_id)


main(*sys.argv[1:])
