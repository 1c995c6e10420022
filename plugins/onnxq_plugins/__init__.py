"""onnxq's own plugins. They are found through the same entry points as anybody's (see pyproject.toml)."""
