"""The random llamas that are measured: their shapes, and what those say about bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import write_checkpoint

STATE = Path(__file__).resolve().parent.parent / ".state" / "bench"
_LAYERS_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class RandomLlama:
    """The shape of a llama of random fp32 weights; the default is the one that the targets name."""

    hidden: int = 512
    layers: int = 16
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 1408
    vocabulary: int = 8192
    context: int = 4096
    seed: int = 1

    def config(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.ffn,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": self.context,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "bos_token_id": None,
            "eos_token_id": self.vocabulary - 1,
        }

    def layer_parameters(self) -> int:
        """Weights of one layer."""
        head = self.hidden // self.heads
        attention = self.hidden * head * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.ffn + 2 * self.hidden

    def stage_bytes(self, start: int, end: int) -> int:
        """What layers [start, end) take in memory as fp32; tied embeddings are held by the first
        and the last stage.
        """
        parameters = (end - start) * self.layer_parameters()
        if start == 0 or end == self.layers:
            parameters += self.vocabulary * self.hidden
        if end == self.layers:
            parameters += self.hidden
        return 4 * parameters

    def tensors(self, start: int, end: int) -> set[str]:
        """Names of what the stage of layers [start, end) needs, and nothing else."""
        names = {name for group in self.groups() for name, _ in group}
        own = {name for n in range(start, end) for name in names if f".layers.{n}." in name}
        if start == 0 or end == self.layers:
            own.add("model.embed_tokens.weight")
        return own | ({"model.norm.weight"} if end == self.layers else set())

    def kv_bytes(self, start: int, end: int, tokens: int) -> int:
        """KV of `tokens` positions in layers [start, end), fp32."""
        return 2 * 4 * (end - start) * self.kv_heads * (self.hidden // self.heads) * tokens

    def folder(self, root: Path = STATE) -> Path:
        """The checkpoint's folder; written when it is not there yet, and only whole."""
        name = hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:8]
        folder = root / "models" / f"llama-{self.hidden}x{self.layers}-{name}"
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write_checkpoint(part, self.config(), self.groups(), self.seed)
            part.rename(folder)
        return folder

    def groups(self) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
        """Names and shapes, file by file."""
        head, width = self.hidden // self.heads, self.hidden
        shapes = {
            "self_attn.q_proj": (self.heads * head, width),
            "self_attn.k_proj": (self.kv_heads * head, width),
            "self_attn.v_proj": (self.kv_heads * head, width),
            "self_attn.o_proj": (width, self.heads * head),
            "mlp.gate_proj": (self.ffn, width),
            "mlp.up_proj": (self.ffn, width),
            "mlp.down_proj": (width, self.ffn),
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
        }
        group: list[tuple[str, tuple[int, ...]]] = []
        group.append(("model.embed_tokens.weight", (self.vocabulary, width)))
        for layer in range(self.layers):
            group += [(f"model.layers.{layer}.{k}.weight", shape) for k, shape in shapes.items()]
            if (layer + 1) % _LAYERS_PER_FILE == 0:
                yield group
                group = []
        yield [*group, ("model.norm.weight", (width,))]
