"""How the embedded models were made: corpus, tokenizer, training, export, evaluation.

Training needs torch, which Shardbus itself does not: `python -m daemon.embedded.train`.
The evaluation runs what is exported on MLX: `python -m daemon.embedded.train.evaluate`.
"""
