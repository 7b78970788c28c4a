"""The weights of a Llama-architecture model, read from a GGUF file into float32 arrays."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.errors import UnsupportedComponentError, VocabularyError

Floats = npt.NDArray[np.float32]

INSTALL_READER = "pip install 'tokamask[demo]'"


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a Llama model, as its GGUF file names them."""

    name: str
    num_layers: int
    hidden_size: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    rope_base: float
    rms_epsilon: float
    chat_template: str
    bos_id: int | None
    eos_id: int | None


@dataclasses.dataclass(frozen=True)
class Layer:
    """One transformer block. Matrices are [out, in]; what shares an input is one matrix."""

    attention_norm: Floats  # [hidden]
    qkv: Floats  # [(num_q_heads + 2 * num_kv_heads) * head_dim, hidden]
    attention_out: Floats  # [hidden, num_q_heads * head_dim]
    mlp_norm: Floats  # [hidden]
    gate_up: Floats  # [2 * intermediate, hidden]
    down: Floats  # [hidden, intermediate]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Everything a forward pass needs; ``head`` is ``embedding`` itself where the model ties them."""

    config: Config
    embedding: Floats  # [vocab_size, hidden]
    layers: list[Layer]
    norm: Floats  # [hidden]
    head: Floats  # [vocab_size, hidden]
    rope_frequencies: npt.NDArray[np.float64]  # [head_dim / 2], radians per position


def load(path: str | os.PathLike[str], *, progress: bool = False) -> Weights:
    """Read a GGUF file of the ``llama`` architecture and de-quantise all of it to float32.

    ``progress`` shows a bar, once loading has taken two seconds. Raises ``FileNotFoundError``, ``VocabularyError``
    for a file that is not GGUF or is cut off, ``UnsupportedComponentError`` for another architecture or an
    unknown quantisation.
    """
    reader = _open(pathlib.Path(path))
    config = _config(reader, str(path))
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def array(*names: str) -> Floats:
        return np.concatenate([_dequantise(tensors, name, str(path)) for name in names])

    def layer(i: int) -> Layer:
        block = f"blk.{i}."
        return Layer(
            attention_norm=array(f"{block}attn_norm.weight"),
            qkv=array(*(f"{block}attn_{part}.weight" for part in "qkv")),
            attention_out=array(f"{block}attn_output.weight"),
            mlp_norm=array(f"{block}ffn_norm.weight"),
            gate_up=array(f"{block}ffn_gate.weight", f"{block}ffn_up.weight"),
            down=array(f"{block}ffn_down.weight"),
        )

    with ThreadPoolExecutor(2) as pool:  # numpy releases the GIL; more threads only add memory traffic
        shared = pool.map(array, ["token_embd.weight", "output_norm.weight"])
        layers = list(_bar(pool.map(layer, range(config.num_layers)), config.num_layers, progress))
        embedding, norm = shared
    return Weights(
        config=config,
        embedding=embedding,
        layers=layers,
        norm=norm,
        head=array("output.weight") if "output.weight" in tensors else embedding,
        rope_frequencies=_rope_frequencies(config, tensors, str(path)),
    )


def _open(path: pathlib.Path) -> Any:
    """A ``gguf.GGUFReader`` that steps over array fields.

    The package reads a vocabulary's 10^5 strings one by one (3.5 s for SmolLM2); weights need none of them.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(f"reading GGUF weights needs the package gguf: {INSTALL_READER}") from error

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        def _get_field_parts(
            self, orig_offs: int, raw_type: int
        ) -> tuple[int, list[Any], list[int], list[Any]]:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
            view = memoryview(self.data)
            item, count = struct.unpack_from("<IQ", view, orig_offs)
            offset = orig_offs + 12
            if item == gguf.GGUFValueType.STRING:
                for _ in range(count):
                    offset += 8 + struct.unpack_from("<Q", view, offset)[0]
            else:
                width = self.gguf_scalar_to_np[gguf.GGUFValueType(item)]
                offset += count * np.dtype(width).itemsize
            return offset - orig_offs, [], [], [gguf.GGUFValueType.ARRAY]

    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such model file", str(path))
    try:
        return Reader(path)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise VocabularyError(f"{path}: not a readable GGUF file: {error}", path=str(path)) from error


def _config(reader: Any, path: str) -> Config:
    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        if field is None and default is None:
            raise VocabularyError(f"{path}: the GGUF metadata lacks {key}", path=path)
        return default if field is None else field.contents()

    architecture = value("general.architecture")
    if architecture != "llama":
        raise UnsupportedComponentError(
            f"{path}: the demo runs the llama architecture, this file is {architecture!r}",
            component=f"architecture {architecture}",
            path=path,
        )
    hidden, heads = value("llama.embedding_length"), value("llama.attention.head_count")
    bos, eos = (value(f"tokenizer.ggml.{which}_token_id", -1) for which in ("bos", "eos"))
    return Config(
        name=value("general.name", pathlib.Path(path).stem),
        num_layers=value("llama.block_count"),
        hidden_size=hidden,
        num_q_heads=heads,
        num_kv_heads=value("llama.attention.head_count_kv", heads),
        head_dim=value("llama.attention.key_length", hidden // heads),
        context_length=value("llama.context_length"),
        rope_base=value("llama.rope.freq_base", 10000.0),
        rms_epsilon=value("llama.attention.layer_norm_rms_epsilon"),
        chat_template=value("tokenizer.chat_template", ""),
        bos_id=bos if bos >= 0 else None,
        eos_id=eos if eos >= 0 else None,
    )


def _dequantise(tensors: dict[str, Any], name: str, path: str) -> Floats:
    import gguf

    if name not in tensors:
        raise VocabularyError(f"{path}: the GGUF file lacks the tensor {name}", path=path)
    tensor = tensors[name]
    try:
        values: Floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise UnsupportedComponentError(
            f"{path}: tensor {name} has the unknown quantisation {kind}",
            component=f"quantisation {kind}",
            path=path,
        ) from error
    return values


def _rope_frequencies(config: Config, tensors: dict[str, Any], path: str) -> npt.NDArray[np.float64]:
    half = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = 1.0 / np.float64(config.rope_base) ** half
    if "rope_freqs.weight" in tensors:  # Llama 3's long-context scaling, as divisors
        frequencies = frequencies / _dequantise(tensors, "rope_freqs.weight", path)
    return frequencies


def _bar(items: Any, total: int, progress: bool) -> Any:
    if not progress:
        return items
    from tqdm import tqdm

    return tqdm(items, "loading the model", total, unit="layer", delay=2.0, leave=False)
