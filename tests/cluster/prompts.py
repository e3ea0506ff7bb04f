"""What the tests ask for."""

CODE = "def fibonacci(n):\n    "
CLASS = "class Stack:\n    def __init__(self"
IMPORT = "import os\n\ndef walk(top"
UNICODE = "# Größe, 長さ, 🚀 und ½\ndef größe(x"
LONG = "".join(
    f"def step_{i}(a, b):\n    return a * {i} + b\n\n" for i in range(24)
)  # several prefill chunks
PROMPTS = (CODE, CLASS, IMPORT, UNICODE, LONG)
