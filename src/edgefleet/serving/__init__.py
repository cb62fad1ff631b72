"""The serving process: inference on the device."""
