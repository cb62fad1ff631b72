"""Models of other tools as source models: MLflow folders, scikit-learn estimators."""
