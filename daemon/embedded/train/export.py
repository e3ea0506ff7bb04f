"""Writes a trained model as the Hugging Face folder that `mlx_lm.load` opens."""

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from daemon.embedded.train.model import Shape, Weights
from daemon.embedded.train.tokenizer import CONTEXT, EOS_ID, save_tokenizer


def export(shape: Shape, weights: Weights, tokenizer: Tokenizer, folder: Path) -> None:
    """Weights stay in float32: MLX's half-precision matmul on the CPU is the slower one."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": CONTEXT,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": EOS_ID,
        "pad_token_id": EOS_ID,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    plain = {name: tensor.detach().float().contiguous() for name, tensor in weights.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(tokenizer, folder)
