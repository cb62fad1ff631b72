"""What is inside a model file: operators, parameters, an estimate of memory, fitting profiles."""
