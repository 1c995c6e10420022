"""One file for each model family: weights of a public package in, a float32 ONNX file out."""
