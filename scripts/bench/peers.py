"""Other compressors, each with what its makers recommend for floats, behind one interface.

All take the tensors as one buffer, which suits them best, and one thread: the caller keeps the process on one core.
Where a peer has no mode for deltas, it compresses the exclusive or with the base, or the difference of the bit patterns
where that is shorter; taking it is part of what is timed.
"""

import os

# z4ai starts as many threads as this says there are cores.
os.cpu_count = lambda: 1

try:
    import numpy as np
except ImportError:
    np = None


def bits(buffer, element):
    return np.frombuffer(buffer, np.uint32 if element == "F32" else np.uint16)


def exclusive_or(one, other):
    """As fast as NumPy does it; the buffers are as long as each other."""
    width = np.uint64 if len(one) % 8 == 0 else np.uint8
    return np.bitwise_xor(np.frombuffer(one, width), np.frombuffer(other, width)).view(np.uint8)


class Peer:
    """`modes` and `elements` (all, if `None`) are what it can do, `how` the way it does deltas; one that `overwrites`
    what it is given gets a copy."""

    modes, elements, how, overwrites = ("alone", "delta"), None, "delta", False


class ByXor(Peer):
    """Deltas as the exclusive or with the base."""

    how = "xor"

    def encode(self, new, base):
        return self.compress(new if base is None else exclusive_or(new, base))

    def decode(self, blob, base):
        plain = self.decompress(blob)
        return plain if base is None else exclusive_or(plain, base)


class ZipNN(Peer):
    """Its defaults, with the element type named. It has a mode for deltas."""

    package, overwrites = "zipnn", True
    DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}

    def __init__(self, element):
        import zipnn

        options = {"bytearray_dtype": self.DTYPES[element], "threads": 1}
        self.alone = lambda: zipnn.ZipNN(**options)
        self.delta = lambda: zipnn.ZipNN(delta_compressed_type="byte", **options)

    def encode(self, new, base):
        return self.alone().compress(new) if base is None else self.delta().compress(new, delta_second_data=base)

    def decode(self, blob, base):
        return self.alone().decompress(blob) if base is None else self.delta().decompress(blob, delta_second_data=base)


class OpenZL(Peer):
    """A graph of OpenZL, without its two checksums."""

    package = "openzl"

    def __init__(self, element):
        import openzl.ext as zl

        self.zl, self.element = zl, element
        self.compressor = zl.Compressor()
        self.compressor.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        for checksum in (zl.CParam.ContentChecksum, zl.CParam.CompressedChecksum):
            self.compressor.set_parameter(checksum, 2)
        self.compressor.select_starting_graph(self.graph(zl, self.compressor))

    def planes(self, zl, compressor):
        planes = zl.nodes.TransposeSplit()(compressor, zl.graphs.Fse()(compressor))
        return zl.nodes.ConvertNumToStructLE()(compressor, planes)

    def compress(self, numbers):
        context = self.zl.CCtx()
        context.ref_compressor(self.compressor)
        # It has to outlive the call that reads it.
        taken = self.zl.Input(self.zl.Type.Numeric, numbers)
        return context.compress([taken])

    def decompress(self, blob):
        return self.zl.DCtx().decompress(blob)[0].content.as_nparray()


class OpenZLFloat(OpenZL):
    """What its profiles for safetensors and PyTorch do: signs and mantissas stored, exponents by FSE."""

    modes, elements = ("alone",), ("BF16", "F32")

    def graph(self, zl, compressor):
        node = zl.nodes.BFloat16Deconstruct if self.element == "BF16" else zl.nodes.Float32Deconstruct
        return node()(compressor, zl.graphs.Store()(compressor), zl.graphs.Fse()(compressor))

    def encode(self, new, _base):
        return self.compress(bits(new, self.element))

    def decode(self, blob, _base):
        return self.decompress(blob)


class OpenZLPlanes(OpenZLFloat):
    """Byte planes by FSE: its profile for fp16, and better than the other one for moments."""

    elements = None

    def graph(self, zl, compressor):
        return self.planes(zl, compressor)


class OpenZLDelta(OpenZL):
    """The best of its graphs for differences, of those tried: zigzag, byte planes, FSE."""

    modes, how = ("delta",), "diff"

    def graph(self, zl, compressor):
        return zl.nodes.Zigzag()(compressor, self.planes(zl, compressor))

    def encode(self, new, base):
        return self.compress(bits(new, self.element) - bits(base, self.element))

    def decode(self, blob, base):
        base = bits(base, self.element)
        return self.decompress(blob).view(base.dtype) + base


class Z4ai(Peer):
    """Its defaults, with the element type named. It has a mode for deltas."""

    package = "z4ai"

    def __init__(self, element):
        import z4ai

        self.z4ai, self.options = z4ai, {"dtype": {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}[element], "threads": 1}

    def encode(self, new, base):
        if base is None:
            return self.z4ai.compress(new, **self.options)
        return self.z4ai.compress_delta(new, base, **self.options)

    def decode(self, blob, base):
        return self.z4ai.decompress(blob) if base is None else self.z4ai.decompress_delta(blob, base)


class Z4aiChunked(ByXor):
    """Its module for speed."""

    package = "z4ai"

    def __init__(self, element):
        from z4ai import chunked

        options = {"dtype": {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}[element], "threads": 1}
        self.compress = lambda plain: chunked.compress(memoryview(plain), **options)
        self.decompress = lambda blob: chunked.decompress(blob, threads=1)


class Blosc(ByXor):
    package = "blosc2"

    def __init__(self, element):
        import blosc2

        codec, level, filter = self.settings(blosc2)
        options = blosc2.CParams(
            codec=codec, clevel=level, typesize=4 if element == "F32" else 2, filters=[filter], filters_meta=[0], nthreads=1
        )
        self.compress = lambda plain: blosc2.compress2(plain, cparams=options)
        self.decompress = lambda blob: blosc2.decompress2(blob, dparams=blosc2.DParams(nthreads=1))


class BloscZstd(Blosc):
    """Its default filter and codec, at level 1: the default of 5 takes some five times as long and is hardly shorter."""

    def settings(self, blosc2):
        return blosc2.Codec.ZSTD, 1, blosc2.Filter.SHUFFLE


class BloscLz4(Blosc):
    """For speed. LZ4 finds more in bit planes than in byte planes."""

    def settings(self, blosc2):
        return blosc2.Codec.LZ4, 5, blosc2.Filter.BITSHUFFLE


class Pcodec(Peer):
    """Its defaults. It has no bfloat16, which it gets as integers; deltas as signed differences of the bits."""

    package, how = "pcodec", "diff"

    def __init__(self, element):
        from pcodec import ChunkConfig, standalone

        self.element = element
        self.number = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}[element]
        self.difference = np.int32 if element == "F32" else np.int16
        self.compress = lambda numbers: standalone.simple_compress(numbers, ChunkConfig())
        self.decompress = standalone.simple_decompress

    def encode(self, new, base):
        if base is None:
            return self.compress(np.frombuffer(new, self.number))
        return self.compress((bits(new, self.element) - bits(base, self.element)).view(self.difference))

    def decode(self, blob, base):
        if base is None:
            return self.decompress(blob)
        base = bits(base, self.element)
        return self.decompress(blob).view(base.dtype) + base


class Zstd(ByXor):
    """zstd -3, which knows nothing of elements."""

    package = "zstandard"

    def __init__(self, _element):
        import zstandard

        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


class ZstdPatch(Peer):
    """zstd -3 --patch-from: the base as a dictionary, long matches, a window over both."""

    package, modes, how = "zstandard", ("delta",), ""

    def __init__(self, _element):
        import zstandard

        self.zstd = zstandard

    def dictionary(self, base):
        return self.zstd.ZstdCompressionDict(base, dict_type=self.zstd.DICT_TYPE_RAWCONTENT)

    def encode(self, new, base):
        window = max(10, min(31, (len(new) + len(base)).bit_length()))
        parameters = self.zstd.ZstdCompressionParameters.from_level(
            3, window_log=window, enable_ldm=True, source_size=len(new), dict_size=len(base)
        )
        return self.zstd.ZstdCompressor(dict_data=self.dictionary(base), compression_params=parameters).compress(new)

    def decode(self, blob, base):
        return self.zstd.ZstdDecompressor(dict_data=self.dictionary(base), max_window_size=1 << 31).decompress(blob)


PEERS = {
    "zipnn": ZipNN,
    "openzl float": OpenZLFloat,
    "openzl planes": OpenZLPlanes,
    "openzl": OpenZLDelta,
    "z4ai": Z4ai,
    "z4ai chunked": Z4aiChunked,
    "blosc2 zstd": BloscZstd,
    "blosc2 lz4": BloscLz4,
    "pcodec": Pcodec,
    "zstd -3": Zstd,
    "zstd -3 patch": ZstdPatch,
}
