"""Converts an ONNX file to TFLite, for the profiles that run LiteRT.

``operators`` has the table of operators, ``walk`` the graph on its way, ``writer`` the file, and
``convert`` compares the answers of both files. Another operator is an error that names it.
"""
