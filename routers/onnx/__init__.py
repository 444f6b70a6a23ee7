"""The ONNX router: the only package that imports onnxruntime and tokenizers, and only on load."""
