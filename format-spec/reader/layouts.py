# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Decoders of every stored object, in the order of format-spec. Pure functions of bytes: they return or raise `Reject`."""
import re
import struct

import blake3
import zstandard

from cbor import U64, Cbor, Reject, array, boolean, mapping, need, only, pair, record, string, uint

KIB, MIB, U32 = 1 << 10, 1 << 20, (1 << 32) - 1


# ---- 00 Conventions -------------------------------------------------------------------------------------------------

def H(data):
    return blake3.blake3(data).digest()


CHUNK_MAX, PACK_MAX, NODE_MAX = 16 * MIB, 128 * MIB, 4 * MIB  # §00.6
ZERO = bytes(32)

INT64 = uint(-(1 << 63), (1 << 63) - 1)
HASH, STORE_ID, TIME = string(bytes, 32, 32), string(bytes, 16, 16), pair(INT64, uint(0, 999_999_999))
TEXT, UINT32, COUNT, NODE_LEN = string(str, 0, U64), uint(0, U32), uint(1), uint(1, NODE_MAX)
FEATURES = array(string(str, 1, 255), 0, 256, order=str.encode)


def document(data, kind, limit, shape, features=None):
    """Judges type, version and features before all else (§00.7)."""
    need(len(data) <= limit, "limit", f"{kind}: {len(data)} bytes")
    value = Cbor(data).document()
    need(type(value) is dict and value.get("type") == kind, "magic", f"not {kind}")
    version = value.get("version")
    need(type(version) is int, "rule", f"{kind}: no version")
    need(version <= 1, "version", f"{kind}: version {version} is newer than 1")
    need(version == 1, "value", f"{kind}: version {version}")
    if features:
        FEATURES(value.get(features), features)
        need(not value[features], "feature", f"{kind}: unknown feature {value[features][:1]}")
    record({"type": TEXT, "version": uint(1, 1), **shape[0]}, shape[1])(value, kind)
    return value


def fixed_version(found, what):
    need(found <= 1, "version", f"{what}: version {found} is newer than 1")
    need(found == 1, "value", f"{what}: version {found}")


# ---- 10 The store ---------------------------------------------------------------------------------------------------

def chunker(value, where):  # §60.3
    size = uint(2 * KIB, CHUNK_MAX)
    record({"algorithm": only("fastcdc-2020", kind="feature"), "min": size, "avg": size, "max": size,
            "normalization": uint(0, 3)})(value, where)
    sizes = [value["min"], value["avg"], value["max"]]
    need(all(s & (s - 1) == 0 for s in sizes), "rule", f"{where}: not powers of two")
    need(sizes[0] < sizes[1] < sizes[2], "rule", f"{where}: sizes do not grow")
    need(8 * KIB <= sizes[1] <= 4 * MIB, "value", f"{where}: average {sizes[1]}")


def decode_format(data):
    shape = {"store": STORE_ID, "hash": only("blake3-256", kind="feature"), "chunker": chunker,
             "pack-size": uint(MIB, 64 * MIB), "must-read": FEATURES, "must-write": FEATURES, "ignorable": FEATURES}
    return document(data, "evenkeel/format", 64 * KIB, (shape, {}), "must-read")


def decode_segments_current(data):
    segment = record({"id": HASH, "len": uint(), "records": uint(0, 1 << 24)})
    condemned = record({"pack": HASH, "since": INT64})
    shape = {"store": STORE_ID, "generation": uint(), "segments": array(segment, order=lambda s: s["id"]),
             "condemned": array(condemned, order=lambda c: c["pack"])}
    return document(data, "evenkeel/segments", 16 * MIB, (shape, {}))


# ---- 20 Pack --------------------------------------------------------------------------------------------------------

def check_location(stored_len, plain_len, encoding, dict_index, dict_count):
    """The rules of §20.3 that footer entries and table records share."""
    need(stored_len >= 1 and plain_len >= 1, "value", "a length of 0")
    need(plain_len <= CHUNK_MAX, "limit", f"a chunk of {plain_len} bytes")
    need(encoding <= 2, "value", f"encoding {encoding}")
    need(dict_index < dict_count if encoding == 2 else dict_index == 0, "value", f"dictionary {dict_index}")
    need(stored_len == plain_len if encoding == 0 else stored_len < plain_len, "rule", "lengths do not fit the encoding")


def decode_trailer(data, file_len):
    """footer_offset, entry count, dictionary count, footer hash (§20.4)."""
    need(file_len <= PACK_MAX, "limit", f"a pack of {file_len} bytes")
    need(file_len >= 125 and len(data) == 64, "truncated", "pack")
    footer_offset, entries, dicts, length, digest, magic = struct.unpack("<QIIQ32s8s", data)
    need(magic == b"EKPEND\r\n", "magic", "pack trailer")
    need(entries >= 1, "value", "a pack without records")
    need(entries <= 1 << 20 and dicts <= 255, "limit", "entries or dictionaries of a pack")
    need(length == file_len, "rule", "file_len of the trailer")
    need(footer_offset >= 17 and footer_offset + 32 * dicts + 44 * entries + 64 == file_len, "rule", "footer_offset")
    return footer_offset, dicts, digest


def decode_footer(footer, trailer):
    """Entries (id, offset, stored_len, plain_len, encoding, dictionary id) in the order of the records (§20.3)."""
    footer_offset, dicts, digest = decode_trailer(trailer, struct.unpack_from("<Q", trailer, 16)[0])
    need(H(footer + trailer[:24]) == digest, "hash", "footer_hash")
    table = [footer[i:i + 32] for i in range(0, 32 * dicts, 32)]
    need(all(a < b for a, b in zip(table, table[1:])), "canonical", "dictionaries out of order")
    result, offset, seen, used = [], 16, set(), set()
    for id, stored, plain, encoding, index, reserved in struct.iter_unpack("<32sIIBBH", footer[32 * dicts:]):
        need(reserved == 0, "value", "reserved bytes of an entry")
        check_location(stored, plain, encoding, index, dicts)
        need(id not in seen, "rule", "a chunk twice in a pack")
        seen.add(id)
        if encoding == 2:
            used.add(index)
        result.append((id, offset, stored, plain, encoding, table[index] if encoding == 2 else None))
        offset += stored
    need(offset == footer_offset, "rule", "records do not fill the pack")
    need(len(used) == dicts, "rule", "an unused dictionary")
    return result


def decode_pack_header(data):
    need(len(data) >= 16, "truncated", "pack header")
    magic, version, kind, flags, reserved = struct.unpack("<8sHBBI", data[:16])
    need(magic == b"EKPACK\r\n", "magic", "pack header")
    fixed_version(version, "pack")
    need(flags == 0 and reserved == 0, "value", "flags or reserved bytes of a pack")
    need(kind in (1, 2), "value", f"pack kind {kind}")
    return kind


def decode_record(stored, plain_len, encoding, dictionary=None):
    """Plain bytes of a record, hash not yet compared (§20.5)."""
    if encoding == 0:
        need(len(stored) == plain_len, "rule", "length of a raw record")
        return stored
    given = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return decode_frame(stored, plain_len, 24, given)


def decode_frame(stored, plain_len, window_log, given=None):
    """Plain bytes of exactly one Zstandard frame that says its length (§20.5)."""
    need(stored[:4] == b"\x28\xb5\x2f\xfd", "magic", "zstd frame")
    need(len(stored) >= 6, "truncated", "zstd frame")
    descriptor = stored[4]
    need(descriptor & 0x1F == 0, "rule", "frame descriptor: checksum, dictionary id or reserved bits")
    single, at = descriptor & 0x20, 5
    if not single:
        base = 1 << (10 + (stored[5] >> 3))
        need(base + base // 8 * (stored[5] & 7) <= 1 << window_log, "limit", "window")
        at = 6
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    need(width, "rule", "a frame without content size")
    need(len(stored) >= at + width, "truncated", "zstd frame")
    size = int.from_bytes(stored[at:at + width], "little") + (256 if width == 2 else 0)
    need(size == plain_len, "value", f"content size {size}, not {plain_len}")
    try:
        plain = zstandard.ZstdDecompressor(dict_data=given, max_window_size=1 << window_log).decompress(
            stored, max_output_size=plain_len, read_across_frames=False, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Reject("rule", f"zstd frame: {error}") from None
    need(len(plain) == plain_len, "rule", "length of the decompressed record")
    return plain


# ---- 30 Segment and locator -----------------------------------------------------------------------------------------

def decode_table(data):
    """Header fields, packs (id, file_len, kind) and records (id, pack index, offset, stored, plain, encoding, dictionary)."""
    need(len(data) >= 160, "truncated", "table")
    (magic, version, bits, flags, packs_n, dicts_n, records_n, length, snapshot, base, steps, reserved) = struct.unpack("<8sHBBIIIQ32s32sI28s", data[:128])
    need(magic in (b"EKSEGM\r\n", b"EKLOCA\r\n"), "magic", "table")
    locator = magic == b"EKLOCA\r\n"
    fixed_version(version, "table")
    need(flags <= (1 if locator else 0), "value", f"flags {flags}")
    need(reserved == bytes(28), "value", "reserved bytes of a table header")
    if locator:
        need(steps <= 15, "limit", f"{steps} steps")
        need((base == ZERO) == (flags == 1) and (steps == 0) == (flags == 1), "rule", "full, base and steps do not agree")
    else:
        need(snapshot == ZERO and base == ZERO and steps == 0, "value", "locator fields in a segment")
    need(bits <= 16, "value", f"{bits} bits of fan-out")
    need(packs_n <= 1 << 16 and dicts_n < 1 << 16 and records_n <= 1 << 24, "limit", "counts of a table")
    dicts_at = 128 + 48 * packs_n
    fanout_at = dicts_at + 32 * dicts_n
    records_at = fanout_at + 4 * ((1 << bits) + 1)
    end = records_at + 56 * records_n
    need(len(data) >= end + 32, "truncated", "table")
    need(len(data) == end + 32, "trailing", "table")
    need(length == len(data), "rule", "file_len of a table")
    need(H(data[:end]) == data[end:], "hash", "trailer of a table")
    packs = list(struct.iter_unpack("<32sQB7s", data[128:dicts_at]))
    for one in packs:
        need(one[3] == bytes(7) and one[2] in (1, 2) and one[1] >= 125, "value", "pack of a table")
        need(one[1] <= PACK_MAX, "limit", "length of a pack")
    dicts = [data[i:i + 32] for i in range(dicts_at, fanout_at, 32)]
    fanout = [n for (n,) in struct.iter_unpack("<I", data[fanout_at:records_at])]
    need(fanout[0] == 0 and fanout[-1] == records_n, "rule", "ends of the fan-out")
    need(all(a <= b for a, b in zip(fanout, fanout[1:])), "rule", "the fan-out decreases")
    rows = list(struct.iter_unpack("<32sQIIIHBB", data[records_at:end]))
    for ids in ([p[0] for p in packs], dicts, [r[0] for r in rows]):
        need(all(a < b for a, b in zip(ids, ids[1:])), "canonical", "ids of a table out of order")
    records = []
    for index, (id, offset, stored, plain, pack, dic, encoding, zero) in enumerate(rows):
        prefix = int.from_bytes(id[:2], "big") >> (16 - bits)
        need(fanout[prefix] <= index < fanout[prefix + 1], "rule", "an id outside its fan-out bucket")
        need(pack < packs_n and zero == 0, "value", "pack or reserved byte of a record")
        check_location(stored, plain, encoding, dic, dicts_n)
        need(16 <= offset and offset + stored <= packs[pack][1] - 64, "rule", "a record outside its pack")
        records.append((id, pack, offset, stored, plain, encoding, dicts[dic] if encoding == 2 else None))
    header = {"kind": "locator" if locator else "segment", "full": bool(flags), "fanout_bits": bits, "steps": steps,
              "snapshot": snapshot, "base": base}
    return header, [p[:3] for p in packs], records


# ---- 40 Manifest ----------------------------------------------------------------------------------------------------

def check_path(path, where="path"):  # §40.2
    string(bytes, 0, 4096)(path, where)
    parts = path.split(b"/") if path else []
    need(len(parts) <= 512, "rule", f"{where}: too deep")
    need(all(1 <= len(p) <= 255 and p not in (b".", b"..") and b"\0" not in p for p in parts), "rule", f"{where}: component")


def path_order(path):
    return path.split(b"/") if path else []


def decode_head(data):
    def name(value, where):
        string(bytes, 1, 255)(value, where)
        need(not set(value) & set(b"\0:\n"), "rule", f"{where}: {value!r} is not a name")
    names = mapping(UINT32, name, 0, 1 << 16)
    shape = {"root": HASH, "root-len": NODE_LEN, "level": uint(0, 15), "entries": COUNT, "users": names, "groups": names}
    return document(data, "evenkeel/manifest", NODE_MAX, (shape, {}))


FLAGS = {"append": 0x20, "compress": 0x4, "dirsync": 0x10000, "immutable": 0x10, "noatime": 0x80, "nocow": 0x800000,
         "nodump": 0x40, "projinherit": 0x20000000, "sync": 0x8, "topdir": 0x20000}
DIRECTORY, FILE, SYMLINK, LINK, FIFO, CHAR, BLOCK, SOCKET = range(8)


def check_xattrs(value, where):
    mapping(string(bytes, 1, 255), string(bytes, 0, 65536), 1, 1024)(value, where)
    need(sum(len(n) + len(v) for n, v in value.items()) <= MIB, "limit", f"{where}: too much in total")
    for name in value:
        need(b"\0" not in name and not name.startswith(b"system.posix_acl_"), "rule", f"{where}: {name!r}")


def check_acl(access):
    def check(value, where):
        def ace(one, where):
            need(type(one) is list and len(one) in (2, 3), "rule", f"{where}: not an entry")
            only(1, 2, 4, 8, 16, 32)(one[0], where)
            uint(0, 7)(one[1], where)
            need((len(one) == 3) == (one[0] in (2, 8)), "rule", f"{where}: an id exactly for named ones")
            UINT32(one[2] if len(one) == 3 else 0, where)
        array(ace, 0, 4096)(value, where)
        keys = [(one[0], *one[2:]) for one in value]
        need(all(a < b for a, b in zip(keys, keys[1:])), "rule", f"{where}: out of order")
        tags = [one[0] for one in value]
        need({1, 4, 32} <= set(tags), "rule", f"{where}: owner, group or others missing")
        need(16 in tags or not (access or {2, 8} & set(tags)), "rule", f"{where}: no mask")
    return check


def check_target(value, where):
    string(bytes, 1, 4095)(value, where)
    need(b"\0" not in value, "rule", f"{where}: NUL")


COMMON = {0: check_path, 1: uint(0, 7), 3: uint(0, 0o7777), 4: UINT32, 5: UINT32, 6: TIME}
MORE = {14: check_xattrs, 15: check_acl(True), 17: array(only(*FLAGS, kind="feature"), 1, 10, order=str.encode)}
LINKS = {13: uint(2, U32)}
SPECIAL = record(COMMON, LINKS | MORE)
DEVICE = record(COMMON | {12: pair(UINT32, UINT32)}, LINKS | MORE)
ENTRY = {
    DIRECTORY: record(COMMON, MORE | {16: check_acl(False)}),
    FILE: record(COMMON | {7: uint(0, 1 << 44)},
                 LINKS | MORE | {8: HASH, 9: string(bytes, 40, 40960), 10: uint(1, 3), 18: only(True)}),
    SYMLINK: record(COMMON | {3: only(0o777), 11: check_target}, {k: v for k, v in (LINKS | MORE).items() if k != 15}),
    LINK: record({0: check_path, 1: uint(), 2: check_path}),
    FIFO: SPECIAL, CHAR: DEVICE, BLOCK: DEVICE, SOCKET: SPECIAL,
}


def check_entry(value, where="entry"):  # §40.5
    need(type(value) is dict and 0 in value, "rule", f"{where}: not an entry")
    uint(0, 7)(value.get(1), f"{where}.kind")
    ENTRY[value[1]](value, where)
    if value[1] == LINK:
        need(value[2] != b"" and path_order(value[2]) < path_order(value[0]), "rule", f"{where}: first member")
    elif value[1] == FILE:
        size = value[7]
        need((8 in value) == (size > 0), "rule", f"{where}: a hash exactly for files that are not empty")
        need(9 in value or (10 not in value and size <= CHUNK_MAX), "rule", f"{where}: chunk list missing")
        if 9 in value:
            need(size > 0, "rule", f"{where}: a chunk list without content")
            decode_runs(value[9], size if 10 not in value else None)
    need(value[0] != b"" or value[1] == DIRECTORY, "rule", f"{where}: the root is not a directory")


def decode_runs(data, size, whole_file=True):
    """Packed list as (id or None for a hole, length); `size` None for a list of list chunks (§40.6).
    A list that is not an entry's own may have a single chunk: then `whole_file` is false."""
    need(len(data) % 40 == 0 and data, "truncated", "packed chunk list")
    runs, at, hole = [], 0, False
    for id, length in struct.iter_unpack("<32sQ", data):
        need(length >= 1, "value", "a run of length 0")
        end = at + length
        need(end <= (U64 if size is None else size), "rule", "runs exceed the size")
        if id == ZERO:
            need(size is not None and not hole, "rule", "a hole where none may be")
            need(at % 4096 == 0 and (end % 4096 == 0 or end == size), "rule", "a hole off the grid")
        else:
            need(length <= CHUNK_MAX, "limit", "a chunk that is too long")
        runs.append((None if id == ZERO else id, length))
        at, hole = end, id == ZERO
    if size is None:
        need(at % 40 == 0 and at > 40960, "rule", "length of an indirect list")
    else:
        need(at == size, "rule", "runs do not add up to the size")
        need(len(runs) > 1 or hole or not whole_file, "canonical", "a list for one chunk")
    return runs


def decode_node(data):
    need(len(data) <= NODE_MAX, "limit", f"a node of {len(data)} bytes")
    value = Cbor(data).document()
    need(type(value) is list and len(value) == 2, "value", "node")
    uint(0, 15)(value[0], "level")
    if value[0] == 0:
        array(check_entry, 1, 1024)(value[1], "entries")
        inside = Structure(inside=True)
        for entry in value[1]:
            inside.push(entry)
        return value
    array(record({0: check_path, 1: HASH, 2: NODE_LEN, 3: COUNT}), 1, 512)(value[1], "children")
    order = [path_order(child[0]) for child in value[1]]
    need(all(a < b for a, b in zip(order, order[1:])), "rule", "children out of order")
    need(sum(child[3] for child in value[1]) <= U64, "value", "entries of the children")
    return value


class Structure:
    """Rules between entries (§40.5): feed it every entry in order, then `finish`. `inside`: begins in mid-manifest."""

    def __init__(self, inside=False):
        self.last, self.dirs, self.groups, self.inside = None, [], {}, inside

    def push(self, entry):
        path = path_order(entry[0])
        if self.last is None:
            need(self.inside or not path, "rule", "the first entry is not the root")
            self.dirs = [path[:i] for i in range(len(path))]
        else:
            need(self.last < path, "rule", f"paths out of order at {entry[0]!r}")
            while self.dirs and self.dirs[-1] != path[:len(self.dirs[-1])]:
                self.dirs.pop()
            need(self.dirs and self.dirs[-1] == path[:-1], "rule", f"no directory above {entry[0]!r}")
        self.last = path
        if entry[1] == DIRECTORY:
            self.dirs.append(path)
        if self.inside:
            return
        if 13 in entry:
            self.groups[entry[0]] = [entry[13] - 1, entry[1]]
        if entry[1] == LINK:
            group = self.groups.get(entry[2], [0])
            need(group[0] > 0, "rule", f"no hard-link group for {entry[0]!r}")
            group[0] -= 1

    def finish(self):
        need(not any(left for left, _ in self.groups.values()), "rule", "a hard-link group with fewer names than it says")


# ---- 50 Snapshot ----------------------------------------------------------------------------------------------------

def decode_snapshot(data):
    def name(value, where):
        TEXT(value, where)
        need(len(value) <= 64, "limit", f"{where}: {len(value)} bytes")
        need(re.fullmatch("[a-z0-9][a-z0-9._-]*", value), "rule", f"{where}: {value!r}")

    def root(value, where):
        string(bytes, 0, 4096)(value, where)
        need(value[:1] == b"/" and b"\0" not in value, "rule", f"{where}: not an absolute path")
    texts = array(TEXT)
    rules = record({"include": texts, "exclude": texts, "identity": texts, "xattrs": texts, "devices": boolean})
    area = record({"name": name, "root": root, "rules": rules, "manifest": HASH, "manifest-len": NODE_LEN,
                   "entries": COUNT, "files": uint(), "bytes": uint(), "unstable": uint()})
    shape = {"must-understand": FEATURES, "depth": uint(), "time": TIME, "author": TEXT, "message": TEXT,
             "labels": mapping(TEXT, TEXT), "chunker": chunker, "areas": array(area, 1, 1024, order=lambda a: a["name"])}
    value = document(data, "evenkeel/snapshot", MIB, (shape, {"parent": HASH}), "must-understand")
    need(("parent" in value) == (value["depth"] > 0), "rule", "parent and depth do not agree")
    return value


def decode_snapshot_index(data):
    """Records (id, parent, time, len) in order of commit (§50.4)."""
    need(len(data) <= 256 * MIB, "limit", f"an index of {len(data)} bytes")
    need(len(data) >= 48, "truncated", "snapshots/index")
    magic, version, reserved, count = struct.unpack("<8sHHI", data[:16])
    need(magic == b"EKSNAP\r\n", "magic", "snapshots/index")
    fixed_version(version, "snapshots/index")
    need(reserved == 0, "value", "reserved bytes of snapshots/index")
    end = 16 + 80 * count
    need(end <= 256 * MIB, "limit", f"{count} snapshots")
    need(len(data) >= end + 32, "truncated", "snapshots/index")
    need(len(data) == end + 32, "trailing", "snapshots/index")
    need(H(data[:end]) == data[end:], "hash", "snapshots/index")
    records = list(struct.iter_unpack("<32s32sqQ", data[16:end]))
    for id, _, _, length in records:
        need(id != ZERO, "rule", "a snapshot id of zeros")
        need(1 <= length <= MIB, "value", "length of a snapshot")
    return records


# Bundles (§80).

BUNDLE_NAMES = {
    1: lambda id: "format", 2: lambda id: "snapshots/index", 3: lambda id: f"snapshots/{id}",
    4: lambda id: "segments/current", 5: lambda id: f"segments/{id}.seg", 6: lambda id: f"locators/{id}",
    7: lambda id: f"deltas/{id}/index", 8: lambda id: f"deltas/{id}", 9: lambda id: f"packs/{id[:2]}/{id}.pack",
}


def bundle_tables_len(header):
    """Bytes of the tables that follow the header."""
    need(len(header) == 128, "truncated", "header")
    need(header[:8] == b"EKBUND\r\n", "magic", "bundle")
    version, flags, bases, entries = struct.unpack_from("<HHII", header, 8)
    fixed_version(version, "bundle")
    need(flags == 0 and not any(header[20:32]) and not any(header[72:96]), "value", "reserved")
    need(bases <= 64 and entries <= 1 << 18, "limit", "counts")
    need(entries >= 3, "value", "entry_count")
    return 32 * bases + 48 * entries


def decode_bundle_head(data, size):
    """Header and tables of a bundle of `size` bytes."""
    length = 128 + bundle_tables_len(data[:128])
    need(len(data) >= length, "truncated", "head")
    need(len(data) == length, "trailing", "head")
    need(H(data[:96] + data[128:]) == data[96:128], "hash", "head")
    target, (file_len,) = data[32:64], struct.unpack_from("<Q", data, 64)
    need(target != ZERO, "rule", "target")
    count = struct.unpack_from("<I", data, 12)[0]
    bases = [data[at:at + 32] for at in range(128, 128 + 32 * count, 32)]
    need(all(base not in (ZERO, target) for base in bases), "rule", "base")
    need(all(a < b for a, b in zip(bases, bases[1:])), "canonical", "bases")
    parts, last, start = {}, (0, ZERO), length
    for at in range(128 + 32 * count, length, 48):
        kind, id, part_len = data[at], data[at + 8:at + 40], struct.unpack_from("<Q", data, at + 40)[0]
        need(kind != 0 and part_len != 0 and not any(data[at + 1:at + 8]), "value", "entry")
        need(part_len <= 1 << 40, "limit", "len")
        need(kind not in BUNDLE_NAMES or (kind in (1, 2, 4)) == (id == ZERO), "rule", "id")
        need(last < (kind, id), "canonical", "entries")
        if kind in BUNDLE_NAMES:
            parts[BUNDLE_NAMES[kind](id.hex())] = (start, part_len)
        last, start = (kind, id), start + part_len
    needed = {"format", "snapshots/index", f"snapshots/{target.hex()}"}
    need(needed <= parts.keys(), "rule", "entries")
    need(file_len == start + 32, "rule", "file_len")
    need(size >= file_len, "truncated", "file")
    need(size == file_len, "trailing", "file")
    return {"target": target, "bases": bases, "parts": parts}
