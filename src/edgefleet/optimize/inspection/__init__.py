"""The content of a model file: operators, parameters, an estimate of memory, fitting profiles."""
