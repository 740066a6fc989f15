"""The machine's own bound for throughput.py: matrix products alone, and plain file input and output. Not a script."""

import os
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECONDS = 1.5  # to measure the products of one network for


def products(codec_folder: Path, kind: str) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]]]:
    """The encoder's and the decoder's products, each a call with tensors of its own, as one thread needs them.

    `kind`: torch.mm; float32, by torch.mm or oneDNN, whichever is faster here; or bytes, where the codec multiplies
    those (else as float32).
    """
    import torch

    from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
    from ae_pipeline.codec.devices import one_torch_thread
    from ae_pipeline.codec.integer import IntegerLayer

    codec = Codec.load(codec_folder)
    model: Any = codec.model
    calls: list[Callable[[], Any]] = []

    def note(module: Any, x: Any) -> None:
        if kind == "bytes" and isinstance(module, IntegerLayer) and module.multiplies_bytes:
            calls.append(lambda: module(x))
        else:
            calls.append(_float_product(module, x.float(), plain=kind == "torch.mm"))

    # What stands beside the layers, as a linear path, is multiplied too.
    encoder = list(dict.fromkeys([*model.encoder_layers(), *model.gives_latents()]))
    names = [*encoder, *dict.fromkeys([*model.decoder_layers(), *model.takes_latents()])]
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: note(module, inputs[0].clone()))
        for name in names
        for module in [model.get_submodule(name)]
    ]
    pixels = torch.randint(0, 256, (BLOCK_ROWS, *codec.spec.shape), dtype=torch.uint8)
    with one_torch_thread():  # with gradients allowed, every layer is called by itself
        if codec.header.is_integer:
            model.decode(model.encode(pixels).round().clamp(-128, 127).to(torch.int8))
        else:
            model.decode(model.encode(pixels / 255))
    for hook in hooks:
        hook.remove()
    return calls[: len(encoder)], calls[len(encoder) :]


def _float_product(module: Any, x: Any, *, plain: bool) -> Callable[[], Any]:
    import torch

    from ae_pipeline.codec.integer import IntegerLayer

    weight = module.weight.float()
    if weight.dim() == 2:
        out = torch.empty(len(x), len(weight))
        candidates = [lambda: torch.mm(x, weight.t(), out=out)]
        if torch.backends.mkldnn.is_available() and not plain:  # on AMD twice as fast as MKL, which torch.mm calls
            candidates.append(lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""))
        return min(candidates, key=lambda call: min(timeit.repeat(call, number=20)))
    bias = module.bias.float()
    if isinstance(module, IntegerLayer):
        return lambda: module.product(x, weight, bias)
    return lambda: module(x)


def product_seconds(threads: list[list[Callable[[], Any]]], rows: int) -> float:
    """Seconds for the products of `rows` rows, all cores at work; one list of calls for each core."""
    import torch

    from ae_pipeline.codec.codec import BLOCK_ROWS
    from ae_pipeline.codec.devices import one_torch_thread

    def work(calls: list[Callable[[], Any]]) -> float:
        blocks, start = 0, time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - start < SECONDS:
                for call in calls:
                    call()
                blocks += 1
        return blocks / (time.perf_counter() - start)

    with one_torch_thread(), ThreadPoolExecutor(len(threads)) as pool:
        return rows / BLOCK_ROWS / sum(pool.map(work, threads))


def file_seconds(source: list[Path], written: list[Path], target: Path) -> float:
    """Seconds to read the source files and to write and fsync the bytes of the written ones."""
    contents = [file.read_bytes() for file in written]
    start = time.perf_counter()
    for file in source:
        file.read_bytes()
    for content in contents:
        with target.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds
