#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Tests of the reader against a store built by hand: nothing here comes from the programs that the reader checks."""
import os
import stat
import struct
import tempfile
import unittest

import zstandard

import layouts
from evenkeel_reader import Restore, Store, decode
from layouts import H, Reject


def cbor(value):
    """Deterministic CBOR, enough for the documents of the format."""
    def head(major, number):
        if number < 24:
            return bytes([major << 5 | number])
        width = next(w for w in (1, 2, 4, 8) if number < 1 << (8 * w))
        return bytes([major << 5 | 24 + (1, 2, 4, 8).index(width)]) + number.to_bytes(width, "big")
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(k + v for k, v in sorted((cbor(k), cbor(v)) for k, v in value.items()))


CHUNKER = {"algorithm": "fastcdc-2020", "min": 2048, "avg": 8192, "max": 32768, "normalization": 1}
META = {3: 0o640, 4: os.getuid(), 5: os.getgid(), 6: [1_700_000_000, 123_456_789]}
ZEROS, TEXT = b"\0" * 4096, b"evenkeel " * 1000


def pack_bytes(kind, chunks, dictionary=None):
    """A pack of `chunks`, compressed where that helps; with `dictionary`, a chunk's bytes, against that."""
    records, entries = b"", b""
    given = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    for chunk in chunks:
        compressor = zstandard.ZstdCompressor(write_checksum=False, write_dict_id=False, dict_data=given)
        frame, encoding = compressor.compress(chunk), 2 if dictionary else 1
        if len(frame) >= len(chunk):
            frame, encoding = chunk, 0
        records += frame
        entries += struct.pack("<32sIIBBH", H(chunk), len(frame), len(chunk), encoding, 0, 0)
    footer = (H(dictionary) if dictionary else b"") + entries
    body = b"EKPACK\r\n" + struct.pack("<HBBI", 1, kind, 0, 0) + records + footer
    counts = struct.pack("<QIIQ", 16 + len(records), len(chunks), 1 if dictionary else 0, len(body) + 64)
    return body + counts + H(footer + counts) + b"EKPEND\r\n"


def leaf_entries():
    runs = [(H(ZEROS[:4095] + b"x"), 4096), (bytes(32), 8192), (H(b"tail"), 4)]
    sparse = b"".join(id + struct.pack("<Q", length) for id, length in runs)
    whole = ZEROS[:4095] + b"x" + bytes(8192) + b"tail"
    return [
        {0: b"", 1: 0, **META, 3: 0o750},
        *([{0: b"device", 1: 5, 12: [1, 3], **META}] if os.geteuid() == 0 else []),
        {0: b"dir", 1: 0, **META, 3: 0o550},
        {0: b"dir/empty", 1: 1, 7: 0, **META},
        {0: b"dir/name\n\xff", 1: 1, 7: len(TEXT), 8: H(TEXT), 13: 2, **META, 14: {b"user.note": b"hello"}},
        {0: b"fifo", 1: 4, **META},
        {0: b"link", 1: 3, 2: b"dir/name\n\xff"},
        {0: b"socket", 1: 7, **META},
        {0: b"sparse", 1: 1, 7: len(whole), 8: H(whole), 9: sparse, **META},
        {0: b"symlink", 1: 2, 11: b"../nowhere", **META, 3: 0o777},
    ], whole


def build(directory, entries=None, dictionary=False):
    """A store with one snapshot of one area `a`; gives the snapshot's id."""
    default, _ = leaf_entries()
    leaf = cbor([0, entries or default])
    node = cbor({"type": "evenkeel/manifest", "version": 1, "root": H(leaf), "root-len": len(leaf), "level": 0,
                 "entries": len(entries or default), "users": {0: b"root"}, "groups": {}})
    files = [e for e in entries or default if e[1] == 1]
    area = {"name": "a", "root": b"/srv", "manifest": H(node), "manifest-len": len(node), "entries": len(entries or default),
            "files": len(files), "bytes": sum(e[7] for e in files), "unstable": 0,
            "rules": {"include": [], "exclude": [], "identity": [], "xattrs": ["user.*"], "devices": False}}
    snapshot = cbor({"type": "evenkeel/snapshot", "version": 1, "must-understand": [], "depth": 0, "time": [1, 0],
                     "author": "a@b", "message": "m", "labels": {}, "chunker": CHUNKER, "areas": [area]})
    base = TEXT[:4500]
    packs = [pack_bytes(1, [ZEROS[:4095] + b"x", b"tail", base]), pack_bytes(2, [node, leaf]),
             pack_bytes(1, [TEXT], base if dictionary else None)]
    names = {"format": cbor({"type": "evenkeel/format", "version": 1, "store": bytes(16), "hash": "blake3-256",
                             "chunker": CHUNKER, "pack-size": 1 << 20, "must-read": [], "must-write": [], "ignorable": []}),
             f"snapshots/{H(snapshot).hex()}": snapshot}
    for pack in packs:
        names[f"packs/{H(pack).hex()[:2]}/{H(pack).hex()}.pack"] = pack
    for name, data in names.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    return H(snapshot).hex()


class StoreTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.store, self.dest = os.path.join(temporary.name, "store"), os.path.join(temporary.name, "dest").encode()


class ReaderTest(StoreTest):
    def restore(self, snapshot):
        store = Store(self.store)
        target = Restore(store, self.dest)
        target.area(store.snapshot(snapshot)["areas"][0])
        return target.problems

    def test_restores_everything(self):
        self.assertEqual(self.restore(build(self.store)), [])
        at = lambda name: os.path.join(self.dest, name)
        with open(at(b"sparse"), "rb") as file:
            self.assertEqual(file.read(), leaf_entries()[1])
        first, second = os.lstat(at(b"dir/name\n\xff")), os.lstat(at(b"link"))
        self.assertEqual((first.st_ino, first.st_nlink), (second.st_ino, 2))
        for entry in leaf_entries()[0]:
            found = os.lstat(at(entry[0]))
            if entry[1] != 3:
                self.assertEqual(found.st_mtime_ns, entry[6][0] * 10**9 + entry[6][1], entry[0])
                self.assertEqual(stat.S_IMODE(found.st_mode), entry[3], entry[0])
        self.assertTrue(stat.S_ISFIFO(os.lstat(at(b"fifo")).st_mode))
        self.assertEqual(os.readlink(at(b"symlink")), b"../nowhere")
        os.chmod(at(b"dir"), 0o700)

    def test_dictionary(self):
        self.assertEqual(self.restore(build(self.store, dictionary=True)), [])
        os.chmod(os.path.join(self.dest, b"dir"), 0o700)

    def test_one_damaged_file_does_not_stop_the_rest(self):
        snapshot = build(self.store)
        store = Store(self.store)
        store.load_index()
        pack, offset, *_ = store.where[H(b"tail")][0]
        with open(os.path.join(self.store, f"packs/{pack.hex()[:2]}/{pack.hex()}.pack"), "r+b") as file:
            file.seek(offset)
            file.write(b"T")
        self.assertEqual([problem[:9] for problem in self.restore(snapshot)], ["b'sparse'"])
        self.assertFalse(os.path.lexists(os.path.join(self.dest, b"sparse")))
        self.assertTrue(os.path.lexists(os.path.join(self.dest, b"symlink")))
        os.chmod(os.path.join(self.dest, b"dir"), 0o700)

    def test_damage_is_found_wherever_it_is(self):
        snapshot = build(self.store)
        for folder, _, files in list(os.walk(self.store)):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "r+b") as file:
                    data = bytearray(file.read())
                    data[len(data) // 3] ^= 4
                    file.seek(0)
                    file.write(data)
                with self.assertRaises((Reject, UnicodeDecodeError), msg=path):
                    store = Store(self.store)
                    for entry in store.entries(store.snapshot(snapshot)["areas"][0]):
                        for id, length in store.runs(entry) if entry[1] == 1 else ():
                            id and store.chunk(id, length)
                    if name == "format":
                        raise Reject("hash", "not protected by a hash")
                with open(path, "r+b") as file:
                    data[len(data) // 3] ^= 4
                    file.write(data)

    def test_structure(self):
        directory, file = {1: 0, **META}, {1: 1, 7: 0, **META}
        for paths in ([(b"a", file)], [(b"", directory), (b"b", file), (b"a", file)], [(b"", directory), (b"a/b", file)],
                      [(b"", directory), (b"a", file), (b"a/b", file)], [(b"", directory), (b"..", file)],
                      [(b"", directory), (b"a", file), (b"b", {1: 3, 2: b"a"})],
                      [(b"", directory), (b"a", file | {13: 3}), (b"b", {1: 3, 2: b"a"})]):
            snapshot = build(self.store, [{0: path, **rest} for path, rest in paths])
            store = Store(self.store)
            with self.assertRaises(Reject, msg=paths):
                list(store.entries(store.snapshot(snapshot)["areas"][0]))

    def test_cbor_is_strict(self):
        for text, kind in (("1800", "canonical"), ("5f40ff", "canonical"), ("a201000000", "canonical"), ("c000", "canonical"),
                           ("f90000", "canonical"), ("f6", "canonical"), ("0000", "trailing"), ("61ff", "canonical"),
                           ("9b7fffffffffffffff", "truncated"), ("42", "truncated"), ("81" * 5000, "limit")):
            with self.assertRaises(Reject) as caught:
                layouts.Cbor(bytes.fromhex(text)).document()
            self.assertEqual(caught.exception.kind, kind, text)

    def test_newer_is_not_damaged(self):
        newer = cbor({"type": "evenkeel/format", "version": 2, "unheard-of": True})
        with self.assertRaises(Reject) as caught:
            decode(newer)
        self.assertEqual(caught.exception.kind, "version")


if __name__ == "__main__":
    unittest.main()
