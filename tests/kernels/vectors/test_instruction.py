"""An instruction and its substitute give the same, inside and outside kernels."""

import numpy as np
from numba import config, types
from numba.core.typing.templates import signature

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors.instruction import instruction


def plain_swap(word):
    return np.uint64(int.from_bytes(int(word).to_bytes(8, "little"), "big"))


@instruction(plain_swap)
def swap(typing, word):
    """The bytes of a word in the other order."""

    def generate(context, builder, sig, args):
        return builder.bswap(args[0])

    return signature(types.uint64, types.uint64), generate


@kernel
def swapped(word):
    return swap(word)


def test_kernels_get_what_the_plain_function_gives(rng):
    for word in (0, 1, 2**64 - 1, *rng.integers(0, 2**63, 20).tolist()):
        assert swapped(np.uint64(word)) == plain_swap(word)
        assert swapped(np.uint64(swapped(np.uint64(word)))) == word


def test_the_plain_function_stands_in_where_nothing_is_compiled(monkeypatch):
    for disabled in (True, False):
        monkeypatch.setattr(config, "DISABLE_JIT", disabled)
        assert (instruction(plain_swap)(lambda typing, word: None) is plain_swap) == disabled
