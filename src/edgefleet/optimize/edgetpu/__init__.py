"""The Edge TPU: which operators of a TFLite file it runs, and its compiler where there is one."""
