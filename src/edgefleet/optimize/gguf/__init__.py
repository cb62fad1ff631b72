"""Language models as GGUF files: quantised variants, and the one for a class by measurement."""
