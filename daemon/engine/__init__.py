"""The engine: loads layers [start, end) of an mlx-lm model, and runs them.

    model.py         what a model folder is                                    no MLX
    checkpoint.py, digest.py     headers and hash of its weights               no MLX
    vocabulary.py    hash of its tokenizer's ids and tokens                    no MLX
    blas.py          which BLAS a stage should run                             no MLX
    kernels.py       where MLX keeps what it compiles                          no MLX
    errors.py        what can go wrong                                         no MLX
    stage.py         Stage: load, run, warm
    forward.py       rows of sequences through its layers, together or one by one
    caches.py, kv.py, quantized.py, states.py    what a stage keeps of a sequence, of a layer
    quantization.py  whether a model's KV can be quantised                     no MLX
    snapshot.py      caches as bytes, and back
    loading.py       own tensors only
    interception.py, dependencies.py     the model's own forward, in parts
    head.py, choosing.py         norm, head and choice of tokens as one compiled step

No sockets, no asyncio. One thread does all of it: MLX ties unevaluated arrays to the thread that
made them. Importing this package imports no MLX, so that shardd and the coordinator may read models
and choose a BLAS.
"""
