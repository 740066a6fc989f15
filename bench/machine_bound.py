"""The machine's own bound for throughput.py: matrix products alone, and plain file input and output. Not a script."""

import os
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECONDS = 1.5  # to measure the products of one network for


def products(codec_folder: Path, *, plain: bool) -> tuple[list[Callable[[], Any]], list[Callable[[], Any]]]:
    """The encoder's and the decoder's products, each a call with tensors of its own, as one thread needs them.

    `plain`: by torch.mm; else by torch.mm or oneDNN, whichever is faster here.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from ae_pipeline.codec import BLOCK_ROWS, Codec
    from ae_pipeline.devices import one_torch_thread

    codec = Codec.load(codec_folder)
    model: Any = codec._model
    calls: list[Callable[[], Any]] = []

    def note(module: Any, inputs: tuple[Any, ...]) -> None:
        x, weight = inputs[0].clone(), module.weight
        if isinstance(module, nn.Linear):
            out = torch.empty(len(x), len(weight))
            candidates = [lambda: torch.mm(x, weight.t(), out=out)]
            if torch.backends.mkldnn.is_available() and not plain:  # on AMD twice as fast as MKL, which torch.mm calls
                candidates.append(lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""))
            calls.append(min(candidates, key=lambda call: min(timeit.repeat(call, number=20))))
        elif isinstance(module, nn.Conv2d):
            calls.append(lambda: functional.conv2d(x, weight, None, module.stride, module.padding))
        else:
            shape = (module.stride, module.padding, module.output_padding)
            calls.append(lambda: functional.conv_transpose2d(x, weight, None, *shape))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, kinds)]
    with one_torch_thread(), torch.inference_mode():
        z = model.encode(torch.rand(BLOCK_ROWS, *codec.spec.shape))
        count = len(calls)
        model.decode(z)
    for hook in hooks:
        hook.remove()
    return calls[:count], calls[count:]


def product_seconds(threads: list[list[Callable[[], Any]]], rows: int) -> float:
    """Seconds for the products of `rows` rows, all cores at work; one list of calls for each core."""
    import torch

    from ae_pipeline.codec import BLOCK_ROWS
    from ae_pipeline.devices import one_torch_thread

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
