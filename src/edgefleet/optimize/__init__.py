"""From trained model files to a signed release."""
