"""The embedded models: two small llamas that continue Python code, trained by `train/` in here.

`TARGET` has eight layers; `DRAFT` has two, under a sixth of its parameters and the same
tokenizer. Both are ordinary Hugging Face folders that `mlx_lm.load` opens. They make tests,
demonstrations and speculation rates real where nothing can be downloaded.
"""

from pathlib import Path

_HERE = Path(__file__).parent

TARGET: Path = _HERE / "target"
DRAFT: Path = _HERE / "draft"
RECORD: Path = _HERE / "training.json"

# The names that the models go by on a command line and in a configuration.
BUILT_IN = {"embedded": TARGET, "embedded-draft": DRAFT}
