"""Routers decide where a request goes. Pure, except for the ONNX session in `routers.onnx`."""
