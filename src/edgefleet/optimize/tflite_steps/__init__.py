"""Steps on TFLite files: integer and half-precision variants, made with ai-edge-quantizer."""
