"""What the server starts: `python3 start.py`, with a socket as standard input."""
import sys

try:
    from trireme_python.worker import main
except ImportError as error:
    if error.name != "numpy":
        raise
    sys.exit(
        f"the Python of this model, {sys.executable} {sys.version.split()[0]}, has no numpy: install it there, or name"
        " another environment by the model's parameter EXECUTION_ENV_PATH"
    )
main()
