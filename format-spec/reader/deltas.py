# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Deltas (format-spec §70): decoders of a delta's head and of the list of deltas, and frames made into chunks."""
import struct
import zlib
from itertools import islice

import zstandard

import deflate
from cbor import Reject, need
from layouts import CHUNK_MAX, MIB, ZERO, H, decode_frame, fixed_version

ZSTD, ZSTD_BASE, DIFFERENCES, AGAIN = 0, 1, 2, 3


def decode_head(head, file_len):
    """Base (or None), target and frames (outputs, bases, encoding, payload offset, payload length, hash) (§70.2, §70.3)."""
    need(file_len <= 64 << 30, "limit", f"a delta of {file_len} bytes")
    need(len(head) >= 128, "truncated", "delta")
    (magic, version, flags, frames_n, outputs_n, bases_n, refs_n, reserved, target, base, digest) = struct.unpack("<8sHHIIIII32s32s32s", head[:128])
    need(magic == b"EKDELT\r\n", "magic", "delta")
    fixed_version(version, "delta")
    need(flags == 0 and reserved == 0, "value", "flags or reserved bytes of a delta")
    need(frames_n >= 1 and outputs_n >= 1, "value", "a delta without frames or outputs")
    need(frames_n <= 1 << 16 and max(outputs_n, bases_n, refs_n) <= 1 << 19, "limit", "counts of a delta")
    outputs_at = 128 + 32 * frames_n
    bases_at = outputs_at + 36 * outputs_n
    refs_at = bases_at + 36 * bases_n
    end = refs_at + 4 * refs_n
    need(len(head) >= end, "truncated", "tables of a delta")
    head = head[:end]
    need(H(head[:96] + head[128:] + struct.pack("<Q", file_len)) == digest, "hash", "head of a delta")
    need(target != ZERO and target != base, "rule", "target of a delta")
    outputs, bases = (list(struct.iter_unpack("<32sI", head[a:b])) for a, b in ((outputs_at, bases_at), (bases_at, refs_at)))
    for chunks in (outputs, bases):
        for id, length in chunks:
            need(id != ZERO, "rule", "a chunk id of zeros")
            need(length >= 1, "value", "a chunk of 0 bytes")
            need(length <= CHUNK_MAX, "limit", f"a chunk of {length} bytes")
        need(len({id for id, _ in chunks}) == len(chunks), "rule", "a chunk twice in a table")
    refs, seen = [], 0
    for (ref,) in struct.iter_unpack("<I", head[refs_at:]):
        need(ref <= seen and ref < bases_n, "rule", "bases are not in the order of their first use")
        seen = max(seen, ref + 1)
        refs.append(bases[ref])
    need(seen == bases_n, "rule", "a base that nothing refers to")
    frames, at, outputs, refs = [], end, iter(outputs), iter(refs)
    for payload, output_n, ref_n, encoding, zeros, payload_hash in struct.iter_unpack("<IIIB3s16s", head[128:outputs_at]):
        need(payload >= 1 and output_n >= 1 and zeros == bytes(3), "value", "a frame")
        need(payload <= 33 * MIB, "limit", f"a payload of {payload} bytes")
        own, used = list(islice(outputs, output_n)), list(islice(refs, ref_n))
        need(len(own) == output_n and len(used) == ref_n, "rule", "a frame with more chunks than there are")
        need(sum(n for _, n in own) <= 32 * MIB and sum(n for _, n in used) <= 64 * MIB, "limit", "chunks of a frame")
        need(encoding > DIFFERENCES or (encoding == ZSTD) == (not used), "rule", "an encoding and its bases")
        frames.append((own, used, encoding, at, payload, payload_hash))
        at += payload
    need(next(outputs, None) is None and next(refs, None) is None, "rule", "a chunk that belongs to no frame")
    need(at == file_len, "rule", "the payloads do not fill the file")
    return None if base == ZERO else base, target, frames


def decode_index(data):
    """Target and entries (base or None, delta id, head_len, file_len) (§70.7)."""
    need(len(data) <= 48 + 80 * 256 + 32, "limit", f"a list of deltas of {len(data)} bytes")
    need(len(data) >= 80, "truncated", "list of deltas")
    magic, version, reserved, count, target = struct.unpack("<8sHHI32s", data[:48])
    need(magic == b"EKDIDX\r\n", "magic", "list of deltas")
    fixed_version(version, "list of deltas")
    need(reserved == 0, "value", "reserved bytes of a list of deltas")
    need(count <= 256, "limit", f"{count} deltas")
    end = 48 + 80 * count
    need(len(data) >= end + 32, "truncated", "list of deltas")
    need(len(data) == end + 32, "trailing", "list of deltas")
    need(H(data[:end]) == data[end:], "hash", "list of deltas")
    need(target != ZERO, "rule", "a snapshot id of zeros")
    entries = list(struct.iter_unpack("<32s32sQQ", data[48:end]))
    need(all(a[:2] < b[:2] for a, b in zip(entries, entries[1:])), "canonical", "deltas out of order")
    for base, _, head_len, file_len in entries:
        need(base != target, "rule", "a delta from a snapshot to itself")
        need(file_len <= 64 << 30, "limit", f"a delta of {file_len} bytes")
        need(128 <= head_len <= 128 + 32 * (1 << 16) + 76 * (1 << 19), "value", "length of a delta's head")
        need(head_len < file_len, "rule", "a delta without payloads")
    return target, [(None if base == ZERO else base, *rest) for base, *rest in entries]


def varint(data, at):
    """Value and place after it (§70.10)."""
    value = 0
    for shift in range(0, 35, 7):
        need(at < len(data), "truncated", "a varint")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            need(value < 1 << 32 and (byte or not shift), "value", "a varint")
            return value, at
    raise Reject("value", "a varint of more than 5 bytes")


def varints(data, at, count):
    values = []
    for _ in range(count):
        value, at = varint(data, at)
        values.append(value)
    return values, at


def differences(base, payload, length):
    """Output of encoding 2 (§70.10)."""
    lengths, at = varints(payload, 0, 6)
    need(1 <= lengths[0] <= 4 * MIB, "limit", "length of the control stream")
    need(lengths[2] + lengths[4] == length, "rule", "lengths of the streams")
    streams = []
    for plain, stored in zip(lengths[::2], lengths[1::2]):
        need(at + stored <= len(payload), "truncated", "a stream")
        need((plain == 0) == (stored == 0), "rule", "an empty stream")
        streams.append(decode_frame(payload[at:at + stored], plain, 23) if plain else b"")
        at += stored
    need(at == len(payload), "trailing", "payload")
    control, diff, extra = streams
    count, at = varint(control, 0)
    need(1 <= count <= len(control), "value", f"{count} steps")
    columns = []
    for _ in range(3):
        column, at = varints(control, at, count)
        columns.append(column)
    need(at == len(control), "trailing", "control stream")
    need(sum(columns[1]) == len(diff) and sum(columns[2]) == len(extra), "rule", "sums of the control stream")
    output, p, d, e = bytearray(), 0, 0, 0
    for seek, same, new in zip(*columns):
        p += seek // 2 if seek % 2 == 0 else -(seek + 1) // 2
        need(0 <= p and p + same <= len(base), "rule", "a place outside the base")
        output += bytes((a + b) & 0xFF for a, b in zip(base[p:p + same], diff[d:d + same]))
        output += extra[e:e + new]
        p, d, e = p + same, d + same, e + new
    return bytes(output)


def expanded(base, ranges):
    """The base, and behind it what streams in it hold (§70.13)."""
    out, end = bytearray(base), 0
    need(not ranges or 2 * len(base) + sum(n for _, _, n in ranges) <= 64 * MIB, "limit", "an expanded base")
    for gap, stored, length in ranges:
        start, end = end + gap, end + gap + stored
        need(end <= len(base), "rule", "a stream beyond the base")
        stream = zlib.decompressobj(-15)
        try:
            held = stream.decompress(base[start:end], length + 1)
        except zlib.error as error:
            raise Reject("rule", "a stream of the base") from error
        need(stream.eof and not stream.unused_data and len(held) == length, "rule", "a stream of the base")
        out += held
    return bytes(out)


def again(base, payload, length):
    """Output of encoding 3 (§70.13)."""
    count, at = varint(payload, 0)
    need(3 * count <= len(payload), "truncated", "ranges")
    numbers, at = varints(payload, at, 3 * count)
    ranges = list(zip(numbers[::3], numbers[1::3], numbers[2::3]))
    count, at = varint(payload, at)
    need(2 * count <= len(payload), "truncated", "pieces")
    pieces = []
    for _ in range(count):
        kind, at = varint(payload, at)
        need(kind == 0 or 4 <= kind <= 9, "value", f"a piece of kind {kind}")
        if kind == 0:
            size, at = varint(payload, at)
            pieces.append((kind, size, size))
            continue
        (flags, window, size), at = varints(payload, at, 3)
        need(flags < 16, "value", "flags of a piece")
        (ahead, at) = (0, at) if flags & 8 else varint(payload, at)
        (before, skip, take), at = varints(payload, at, 3)
        pieces.append((kind, window + size + ahead, take, (window, ahead, before, flags & 7, bool(flags & 8), skip)))
    (plain_len, inner), at = varints(payload, at, 2)
    need(plain_len <= 24 * MIB, "limit", "plain bytes")
    need(sum(piece[1] for piece in pieces) == plain_len and sum(piece[2] for piece in pieces) == length, "rule", "pieces")
    if inner > DIFFERENCES:
        return None
    base = expanded(base, ranges)
    plain = decode_payload(inner, base if inner != ZSTD else b"", payload[at:], plain_len)
    output, at = bytearray(), 0
    for kind, uses, take, *how in pieces:
        data, at = plain[at:at + uses], at + uses
        if kind:
            window, ahead, before, lead, last, skip = how[0]
            made = deflate.part(data, window, ahead, kind, before, lead, last)
            need(skip + take <= len(made), "rule", "a piece is shorter than it says")
            data = made[skip:skip + take]
        output += data
    return bytes(output)


def decode_payload(encoding, base, payload, length):
    """Output of a frame, hashes not yet compared; None for an encoding of a later program (§70.5)."""
    need(length <= 32 * MIB and len(base) <= 64 * MIB and len(payload) <= 33 * MIB, "limit", "a frame of a delta")
    if encoding == DIFFERENCES:
        return differences(base, payload, length)
    if encoding == AGAIN:
        return again(base, payload, length)
    if encoding > AGAIN:
        return None
    given = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
    return decode_frame(payload, length, 27, given)


def chunks(data, find):
    """Chunks (id → bytes) that a whole delta gives, and notes on frames that gave none. `find` gives a chunk or None (§70.8)."""
    made, notes = {}, []
    for number, (outputs, bases, encoding, at, length, digest) in enumerate(decode_head(data, len(data))[2]):
        payload = data[at:at + length]
        try:
            need(H(payload)[:16] == digest, "hash", "payload")
            found = [made.get(id) or find(id) for id, _ in bases]
            need(all(chunk is not None and len(chunk) == n for chunk, (_, n) in zip(found, bases)), "rule", "a base is missing")
            output = decode_payload(encoding, b"".join(found), payload, sum(n for _, n in outputs))
            need(output is not None, "feature", f"encoding {encoding}")
        except Reject as error:
            notes.append(f"frame {number}: {error}")
            continue
        start = 0
        for id, n in outputs:
            chunk, start = output[start:start + n], start + n
            if H(chunk) == id:
                made[id] = chunk
            else:
                notes.append(f"frame {number}: what it gives is not chunk {id.hex()}")
    return made, notes
