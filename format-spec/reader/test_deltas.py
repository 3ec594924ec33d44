# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Tests of deltas, made by hand from the text of format-spec §70."""
import os
import random
import struct
import subprocess
import unittest

import zstandard

import deflate
import deltas
from cbor import Reject
from evenkeel_reader import Store
from layouts import H
from test_reader import TEXT, ZEROS, StoreTest, build

RAW = zstandard.DICT_TYPE_RAWCONTENT


def varint(value):
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data) + bytes([value])


def frame(base, output):
    """Payload of encoding 0 or 1."""
    given = zstandard.ZstdCompressionDict(base, dict_type=RAW) if base else None
    return zstandard.ZstdCompressor(write_checksum=False, write_dict_id=False, dict_data=given).compress(output)


def difference(steps, diff, extra):
    """Payload of encoding 2; `steps` are (seek, diff, extra)."""
    columns = [[2 * seek if seek >= 0 else -2 * seek - 1 for seek, _, _ in steps], *([s[i] for s in steps] for i in (1, 2))]
    control = varint(len(steps)) + b"".join(varint(value) for column in columns for value in column)
    streams = [(stream, frame(b"", stream) if stream else b"") for stream in (control, diff, extra)]
    return b"".join(varint(len(a)) + varint(len(b)) for a, b in streams) + b"".join(b for _, b in streams)


def delta(frames, base=bytes(32), target=b"t" * 32):
    """A delta of frames (output chunks, base chunks, encoding, payload)."""
    listed, refs, outputs, table, chunk = [], b"", b"", b"", lambda data: H(data) + struct.pack("<I", len(data))
    for own, used, encoding, payload in frames:
        table += struct.pack("<IIIB3x16s", len(payload), len(own), len(used), encoding, H(payload)[:16])
        outputs += b"".join(map(chunk, own))
        for one in map(chunk, used):
            if one not in listed:
                listed.append(one)
            refs += struct.pack("<I", listed.index(one))
    counts = len(frames), len(outputs) // 36, len(listed), len(refs) // 4
    tables = table + outputs + b"".join(listed) + refs
    start = b"EKDELT\r\n" + struct.pack("<HHIIII4x", 1, 0, *counts) + target + base
    payloads = b"".join(payload for *_, payload in frames)
    digest = H(start + tables + struct.pack("<Q", 128 + len(tables) + len(payloads)))
    return start + digest + tables + payloads


def index(target, entries):
    body = b"EKDIDX\r\n" + struct.pack("<HHI", 1, 0, len(entries)) + target
    body += b"".join(base + id + struct.pack("<QQ", *lengths) for base, id, *lengths in sorted(entries))
    return body + H(body)


OLD = b"\x37\xa4\x30\xec" + random.Random(1).randbytes(5000)
NEW = OLD[2000:] + b"new" + bytes((byte + 1) & 0xFF for byte in OLD[:2000])
STEPS = difference([(2000, 3004, 3), (-5004, 2000, 0)], bytes(3004) + b"\1" * 2000, b"new")


def zipped(held, level=6):
    """A gzip file as GNU gzip makes it; also what is in front of its stream and behind it."""
    file = subprocess.run(["gzip", f"-{level}", "-n", "-c"], input=held, stdout=subprocess.PIPE, check=True).stdout
    return file[:10], file[10:-8], file[-8:]


class AgainTest(unittest.TestCase):
    WORDS = [random.Random(n).randbytes(3 + n % 9) for n in range(900)]
    HELD = b"".join(random.Random(5).choices(WORDS, k=9000))

    def test_streams_are_gzips_own(self):
        for held in (b"", b"a", b"ab" * 99, bytes(70000), self.HELD, random.Random(3).randbytes(40000)):
            for level in (4, 6, 9):
                self.assertEqual(deflate.part(held, 0, 0, level, 2, 0, True), zipped(held, level)[1])

    def test_a_file_is_made_again(self):
        old, new = self.HELD, self.HELD[:30000] + b"a new word" + self.HELD[30000:]
        head, stream, tail = zipped(old)
        base = head + stream + tail
        start, wanted, end = zipped(new)
        plain = start + new + end
        inner = frame(base + old, plain)
        numbers = [1, len(head), len(stream), len(old), 3, 0, len(start)]
        numbers += [6, 8, 0, len(new), 2, 0, len(wanted), 0, len(end), len(plain), 1]
        output = start + wanted + end

        def made(numbers, inner=inner, length=len(output)):
            return deltas.decode_payload(3, base, b"".join(map(varint, numbers)) + inner, length)

        self.assertEqual(made(numbers), output)
        self.assertLess(len(inner), len(output) // 20)
        self.assertIsNone(made(numbers[:-1] + [7]))
        for at, wrong in ((1, 9), (2, len(stream) - 1), (3, len(old) + 1), (4, 2), (7, 3), (8, 16), (9, 1), (11, 1), (13, 1), (16, 9)):
            with self.subTest(at=at):
                self.assertRaises(Reject, made, numbers[:at] + [wrong] + numbers[at + 1:])
        self.assertRaises(Reject, made, numbers, length=len(output) + 1)


class DeltaTest(unittest.TestCase):
    def test_encodings(self):
        self.assertEqual(deltas.decode_payload(0, b"", frame(b"", NEW), len(NEW)), NEW)
        self.assertEqual(deltas.decode_payload(1, OLD, frame(OLD, NEW), len(NEW)), NEW)
        self.assertEqual(deltas.decode_payload(2, OLD, STEPS, len(NEW)), NEW)
        self.assertIsNone(deltas.decode_payload(4, OLD, b"?", 1))
        for encoding, payload in ((1, frame(OLD, NEW)), (2, STEPS)):
            for length in (len(NEW) - 1, len(NEW) + 1):
                self.assertRaises(Reject, deltas.decode_payload, encoding, OLD, payload, length)
            for cut in range(0, len(payload), 7):
                self.assertRaises(Reject, deltas.decode_payload, encoding, OLD, payload[:cut], len(NEW))

    def test_steps_stay_inside(self):
        for steps in ([(-1, 1, 0)], [(len(OLD), 1, 0)], [(0, len(OLD), 0), (0, 1, 0)], [(0, 2, 0)], [(0, 0, 1)]):
            length = max(1, sum(step[1] for step in steps))
            wrong = length if steps[0][1:] not in ((2, 0), (0, 1)) else length + 1
            self.assertRaises(Reject, deltas.decode_payload, 2, OLD, difference(steps, bytes(wrong), b""), wrong)

    def test_varints(self):
        for data, value in ((b"\0", 0), (b"\x7f", 127), (b"\x80\1", 128), (b"\xff\xff\xff\xff\x0f", (1 << 32) - 1)):
            self.assertEqual(deltas.varint(data, 0), (value, len(data)))
        for data in (b"", b"\x80", b"\x80\0", b"\xff\xff\xff\xff\x10", b"\x80\x80\x80\x80\x80\1"):
            self.assertRaises(Reject, deltas.varint, data, 0)

    def test_frames_use_what_came_before(self):
        last = OLD[:10]
        file = delta([([OLD[:3000], OLD[3000:]], [], 0, frame(b"", OLD)), ([NEW], [OLD[:3000], OLD[3000:]], 2, STEPS),
                      ([b"later"], [OLD[:3000]], 77, b"?"), ([last], [b"nobody has it"], 1, frame(b"nobody has it", last))])
        made, notes = deltas.chunks(file, lambda id: None)
        self.assertEqual(made, {H(data): data for data in (OLD[:3000], OLD[3000:], NEW)})
        self.assertEqual([note[:7] for note in notes], ["frame 2", "frame 3"])

    def test_lies_are_found(self):
        file = delta([([OLD], [], 0, frame(b"", OLD[:-1] + b"!")), ([NEW], [], 0, frame(b"", NEW))])
        made, notes = deltas.chunks(file, lambda id: None)
        self.assertEqual((list(made), len(notes)), ([H(NEW)], 1))
        damaged = bytearray(file)
        damaged[-1] ^= 1
        self.assertEqual(deltas.chunks(bytes(damaged), lambda id: None)[0], {})
        for bit in range(0, 8 * deltas.decode_head(file, len(file))[2][0][3], 13):
            damaged = bytearray(file)
            damaged[bit // 8] ^= 1 << bit % 8
            self.assertRaises(Reject, deltas.decode_head, bytes(damaged), len(file))


class StoreDeltaTest(StoreTest):
    def test_deltas_of_a_store(self):
        target = bytes.fromhex(build(self.store))
        os.makedirs(os.path.join(self.store, "deltas", target.hex()))
        first = ZEROS[:4095] + b"x"
        file = delta([([TEXT], [first], 1, frame(first, TEXT))], b"b" * 32, target)
        head_len = len(file) - len(frame(first, TEXT))
        listed = index(target, [(b"b" * 32, H(file), head_len, len(file))])
        for name, data in ((H(file).hex(), file), (f"{target.hex()}/index", listed)):
            with open(os.path.join(self.store, "deltas", name), "wb") as out:
                out.write(data)
        store = Store(self.store)
        self.assertEqual(len(list(store.check_deltas())), 1)
        self.assertEqual([note for note in store.notes if "frame" in note], [])


if __name__ == "__main__":
    unittest.main()
