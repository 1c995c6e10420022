"""`python -m onnxq` is the command line."""

from onnxq.cli import main

if __name__ == "__main__":
    main()
