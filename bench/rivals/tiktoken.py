"""tiktoken: byte-pair encoding by rank file and split pattern."""

import os

from bench.rivals import Rival, again


class Tiktoken(Rival):
    name = "tiktoken"
    distribution = "tiktoken"
    needs = ("tiktoken",)

    @staticmethod
    def _encoding(files):
        import tiktoken

        return tiktoken.Encoding(
            files.name, pat_str=files.pattern, mergeable_ranks=files.ranks, special_tokens=files.special
        )

    def encode(self, files):
        return self._encoding(files).encode_ordinary

    def append(self, files):
        return again(self._encoding(files).encode_ordinary)

    def count(self, files):
        encode = self._encoding(files).encode_ordinary
        return lambda text: len(encode(text))

    def drop_in(self, files):
        return self._encoding(files).encode

    def encode_array(self, files):
        encode = self._encoding(files).encode_to_numpy
        return lambda text: encode(text, disallowed_special=())

    def encode_batch(self, files):
        encode = self._encoding(files).encode_ordinary_batch
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return lambda texts: encode(texts, num_threads=threads)

    adversarial = encode_array

    def decode(self, files):
        return self._encoding(files).decode


ADAPTER = Tiktoken()
