#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Independent reader of the Evenkeel store format, version 1: lists, shows and restores snapshots of a store directory.

Written from format-spec alone; shares no code with the programs it checks. Bytes from a store are hostile until
their hash has been compared: `Store.chunk` is the only way to content.
Exit status: 0 done, 1 failed, 2 usage, 3 done but some attributes or entries could not be restored.
"""
import argparse
import fcntl
import json
import os
import re
import stat
import struct
import sys

import blake3

import deltas
import layouts
from layouts import BLOCK, CHAR, DIRECTORY, FIFO, FILE, LINK, SOCKET, SYMLINK, H, Reject, need, path_order


def bundle_parts(path):
    """Name → (start, length) of the objects of a bundle (§80)."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(128)
        return layouts.decode_bundle_head(header + file.read(layouts.bundle_tables_len(header)), size)["parts"]


class Store:
    """A store in a directory (§10.3) or in one file (§80). `notes` says what was worked around."""

    def __init__(self, path):
        self.path, self.notes, self.where = os.fsencode(path), [], None
        self.parts = bundle_parts(self.path) if os.path.isfile(self.path) else None
        self.format = layouts.decode_format(self.read("format", 64 << 10))

    def pread(self, name, count, offset, from_end=False):
        """At most `count` bytes of an object from `offset`, or its last ones; and the object's length."""
        path, start, size = os.path.join(self.path, os.fsencode(name)), 0, None
        if self.parts is not None:
            if name not in self.parts:
                raise FileNotFoundError(f"{name} is not in the bundle")
            path, (start, size) = self.path, self.parts[name]
        fd = os.open(path, os.O_RDONLY | (os.O_NOFOLLOW if self.parts is None else 0) | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size if size is None else size
            offset = max(0, size - count) if from_end else offset
            file.seek(start + offset)
            return file.read(max(0, min(count, size - offset))), size

    def read(self, name, limit):
        data, size = self.pread(name, limit, 0)
        need(size <= limit, "limit", f"{name} is longer than {limit} bytes")
        return data

    def names(self, directory, pattern):
        if self.parts is not None:
            below = [name[len(directory) + 1:] for name in self.parts if name.startswith(directory + "/")]
            return sorted({name for part in below for name in [part.split("/")[0]] if re.fullmatch(pattern, name)})
        try:
            found = sorted(os.listdir(os.path.join(self.path, os.fsencode(directory))))
        except FileNotFoundError:
            return []
        return [name.decode() for name in found if re.fullmatch(pattern.encode(), name)]

    # Where chunks are: segments (§30), or pack footers when those do not serve (§10.5).

    def load_index(self):
        """Chunk id → list of (pack id, offset, stored_len, plain_len, encoding, dictionary id)."""
        self.where = {}
        try:
            current = layouts.decode_segments_current(self.read("segments/current", 16 << 20))
            need(current["store"] == self.format["store"], "rule", "segments/current of another store")
            for segment in current["segments"]:
                name = f"segments/{segment['id'].hex()}.seg"
                data = self.read(name, 2 << 30)
                need(H(data) == segment["id"] and len(data) == segment["len"], "hash", name)
                header, packs, records = layouts.decode_table(data)
                need(header["kind"] == "segment" and len(records) == segment["records"], "rule", name)
                for id, pack, *location in records:
                    self.where.setdefault(id, []).append((packs[pack][0], *location))
        except (Reject, OSError) as error:
            self.rebuild_index(error)

    def rebuild_index(self, why):
        self.notes.append(f"index rebuilt from pack footers: {why}")
        self.where, self.rebuilt = {}, True
        for fan in self.names("packs", "[0-9a-f]{2}"):
            for name in self.names(f"packs/{fan}", r"[0-9a-f]{64}\.pack"):
                try:
                    for id, *location in self.footer(f"packs/{fan}/{name}"):
                        self.where.setdefault(id, []).append((bytes.fromhex(name[:64]), *location))
                except (Reject, OSError) as error:
                    self.notes.append(f"packs/{fan}/{name}: {error}")

    rebuilt = False

    def footer(self, name):
        trailer, size = self.pread(name, 64, 0, from_end=True)
        start = layouts.decode_trailer(trailer, size)[0]
        return layouts.decode_footer(self.pread(name, size - 64 - start, start)[0], trailer)

    def chunk(self, id, length=None, dictionary=False):
        """Plain bytes of a chunk: they hash to `id` and have the length that the caller was told."""
        if self.where is None:
            self.load_index()
        error = None
        for pack, offset, stored_len, plain_len, encoding, dict_id in self.where.get(id, []):
            try:
                need(not (dictionary and encoding == 2), "rule", "a dictionary that needs a dictionary")
                known = self.chunk(dict_id, dictionary=True) if encoding == 2 else None
                name = f"packs/{pack.hex()[:2]}/{pack.hex()}.pack"
                stored = self.pread(name, stored_len, offset)[0]
                need(len(stored) == stored_len, "truncated", name)
                plain = layouts.decode_record(stored, plain_len, encoding, known)
                need(H(plain) == id, "hash", f"{name}: chunk {id.hex()}")
                need(length in (None, len(plain)), "rule", f"chunk {id.hex()} has {len(plain)} bytes, not {length}")
                return plain
            except (Reject, OSError) as problem:
                error = problem
        if not self.rebuilt:
            self.rebuild_index(error or f"chunk {id.hex()} is not listed")
            return self.chunk(id, length, dictionary)
        raise error or Reject("rule", f"chunk {id.hex()} is in no pack")

    # Deltas (§70): this reader needs none, as packs have every chunk. It makes their chunks to compare.

    def check_deltas(self):
        """Lines about every delta of the store; what is wrong with one goes to `notes`."""
        def find(id):
            try:
                return self.chunk(id)
            except Reject:
                return None
        for target in self.names("deltas", "[0-9a-f]{64}"):
            if not os.path.isdir(os.path.join(self.path, b"deltas", target.encode())):
                continue
            listed, entries = deltas.decode_index(self.read(f"deltas/{target}/index", 48 + 80 * 256 + 32))
            need(listed.hex() == target, "rule", f"deltas/{target}/index: another target")
            for base, delta, head_len, file_len in entries:
                name = f"deltas/{delta.hex()}"
                data = self.read(name, file_len)
                need(H(data) == delta and len(data) == file_len, "hash", name)
                known_base, known_target, frames = deltas.decode_head(data, file_len)
                need((known_base, known_target, frames[0][3]) == (base, listed, head_len), "rule", f"{name}: the list differs")
                made, notes = deltas.chunks(data, find)
                self.notes.extend(f"{name}: {note}" for note in notes)
                yield "\t".join((delta.hex(), base.hex() if base else "-", target, str(len(frames)), str(len(made))))

    # Snapshots (§50) and manifests (§40).

    def snapshots(self):
        """(id, document) in order of commit, those that the index lacks at the end by time."""
        there, listed = set(self.names("snapshots", "[0-9a-f]{64}")), []
        try:
            records = layouts.decode_snapshot_index(self.read("snapshots/index", 256 << 20))
            listed = [id.hex() for id, *_ in records if id.hex() in there]
        except (Reject, OSError) as error:
            self.notes.append(f"snapshots/index: {error}")
        rest = [(name, self.snapshot(name)) for name in sorted(there - set(listed))]
        return [(n, self.snapshot(n)) for n in listed] + sorted(rest, key=lambda s: (s[1]["depth"], s[1]["time"]))

    def snapshot(self, name):
        data = self.read(f"snapshots/{name}", 1 << 20)
        need(H(data).hex() == name, "hash", f"snapshots/{name}")
        return layouts.decode_snapshot(data)

    def resolve(self, text):
        found = self.snapshots()
        if text == "@latest" and found:
            return found[-1]
        matching = [one for one in found if len(text) >= 8 and one[0].startswith(text)]
        need(len(matching) == 1, "value", f"{text} names {len(matching)} snapshots")
        return matching[0]

    def entries(self, area):
        """Entries of an area in order, every rule of §40 checked."""
        head = layouts.decode_head(self.chunk(area["manifest"], area["manifest-len"]))
        need(head["entries"] == area["entries"], "rule", "entries of head and snapshot differ")
        structure, totals = layouts.Structure(), [0, 0, 0, 0]
        for entry in self.walk(head["root"], head["root-len"], head["level"], None, head["entries"]):
            structure.push(entry)
            is_file = entry[1] == FILE
            totals = [a + b for a, b in zip(totals, (1, is_file, entry.get(7, 0), 18 in entry))]
            yield entry
        structure.finish()
        need(totals == [area[k] for k in ("entries", "files", "bytes", "unstable")], "rule", "totals of the snapshot")

    def walk(self, id, length, level, first, count):
        found_level, items = layouts.decode_node(self.chunk(id, length))
        need(found_level == level, "rule", f"a node of level {found_level}, not {level}")
        need(first in (None, items[0][0]), "rule", "first path of a node")
        need(count == (len(items) if level == 0 else sum(c[3] for c in items)), "rule", "entries below a node")
        if level == 0:
            yield from items
        else:
            for child in items:
                yield from self.walk(child[1], child[2], level - 1, child[0], child[3])

    def runs(self, entry):
        """(chunk id or None for a hole, length) of a file's content (§40.6)."""
        size, depth = entry[7], entry.get(10, 0)
        if 9 not in entry:
            return [(entry[8], size)] if size else []
        packed = entry[9]
        for level in range(depth, 0, -1):
            packed = b"".join(self.chunk(id, length) for id, length in layouts.decode_runs(packed, None))
        return layouts.decode_runs(packed, size)


class Restore:
    """Writes an area into a new directory. Every name is reached through held directories, never through a link."""

    def __init__(self, store, dest):
        self.store, self.problems, self.flags = store, [], []
        os.mkdir(dest, 0o700)
        self.root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        for name in ("system.posix_acl_default", "system.posix_acl_access"):  # inherited from above, not ours
            self.attempt(None, os.removexattr, self.root, name)
        self.stack = []  # (components, entry, descriptor) of the directories above the current entry

    def area(self, area):
        for entry in self.store.entries(area):
            parts = path_order(entry[0])
            while self.stack and self.stack[-1][0] != parts[:len(self.stack[-1][0])]:
                self.leave()
            self.enter(entry, parts)
        while self.stack:
            self.leave()
        for path, names in self.flags:  # last: an immutable inode takes no link, time or child
            self.attempt(path, self.set_flags, path, names)

    def attempt(self, path, call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except (OSError, OverflowError) as error:
            if path is not None:
                self.problems.append(f"{path!r}: {error}")

    def enter(self, entry, parts):
        path, kind = entry[0], entry[1]
        if not parts:
            self.stack.append((parts, entry, os.dup(self.root)))
            return
        at = b"/proc/self/fd/%d/%s" % (self.stack[-1][2], parts[-1])
        if kind == DIRECTORY:
            os.mkdir(at, 0o700)
            self.stack.append((parts, entry, os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)))
            return
        if kind == LINK:
            above, name = self.reach(entry[2])
            self.attempt(path, os.link, b"/proc/self/fd/%d/%s" % (above, name), at, follow_symlinks=False)
            os.close(above)
            return
        if kind == FILE:
            try:
                self.content(at, entry)
            except Reject as error:  # one damaged file does not stop the rest
                os.unlink(at)
                self.problems.append(f"{path!r}: {error}")
                return
        elif kind == SYMLINK:
            os.symlink(entry[11], at)
        else:
            node = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK}[kind]
            try:
                os.mknod(at, node | 0o600, os.makedev(*entry.get(12, (0, 0))))
            except OSError as error:
                self.problems.append(f"{path!r}: {error}")
                return
        self.attributes(at, entry)

    def leave(self):
        _, entry, fd = self.stack.pop()
        self.attributes(b"/proc/self/fd/%d/." % fd, entry)
        os.close(fd)

    def reach(self, path):
        """The directory that holds `path`, opened component by component, and the last component."""
        *above, name = path_order(path)
        fd = os.dup(self.root)
        for part in above:
            fd, closed = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd), fd
            os.close(closed)
        return fd, name

    def content(self, at, entry):
        fd = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            hasher, offset = blake3.blake3(), 0
            os.ftruncate(fd, entry[7])
            for id, length in self.store.runs(entry):
                if id is None:
                    for done in range(0, length, 1 << 20):
                        hasher.update(bytes(min(1 << 20, length - done)))
                else:
                    plain, done = self.store.chunk(id, length), 0
                    hasher.update(plain)
                    while done < length:
                        done += os.pwrite(fd, plain[done:], offset + done)
                offset += length
            need(8 not in entry or hasher.digest() == entry[8], "hash", f"content of {entry[0]!r}")
        finally:
            os.close(fd)

    def attributes(self, at, entry):
        """Owner → mode → attributes → ACLs → time; changing the owner clears set-id bits and capabilities."""
        path, link = entry[0], entry[1] == SYMLINK
        self.attempt(path, os.chown, at, entry[4], entry[5], follow_symlinks=False)
        if not link:
            self.attempt(path, os.chmod, at, entry[3])
        for name, value in entry.get(14, {}).items():
            self.attempt(path, os.setxattr, at, name, value, follow_symlinks=False)
        for key, name in ((15, "system.posix_acl_access"), (16, "system.posix_acl_default")):
            if key in entry:
                rows = [struct.pack("<HHI", ace[0], ace[1], ace[2] if len(ace) == 3 else 0xFFFFFFFF) for ace in entry[key]]
                self.attempt(path, os.setxattr, at, name, struct.pack("<I", 2) + b"".join(rows))
        seconds, nanos = entry[6]
        when = seconds * 10**9 + nanos
        self.attempt(path, os.utime, at, ns=(when, when), follow_symlinks=False)
        if 17 in entry:
            self.flags.append((path, entry[17]))

    def set_flags(self, path, names):
        above, name = self.reach(path) if path else (os.dup(self.root), b".")
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
            known = sum(layouts.FLAGS.values())
            old = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, bytes(4)))[0]
            wanted = old & ~known | sum(layouts.FLAGS[one] for one in names)
            fcntl.ioctl(fd, 0x40086602, struct.pack("i", wanted))
            os.close(fd)
        finally:
            os.close(above)


def show(data):
    """Bytes for people: printable ASCII as it is, everything else escaped."""
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in data)


def plain(value):
    """A decoded value as JSON: bytes in hex, keys as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(plain(key)): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def decode(data):
    """Kind and decoded value of any object; told apart by its first bytes."""
    fixed = {b"EKSEGM": "segment", b"EKLOCA": "locator", b"EKPACK": "pack", b"EKSNAP": "snapshots-index",
             b"EKDELT": "delta", b"EKDIDX": "delta-index"}
    kind = fixed.get(data[:6])
    if kind in ("segment", "locator"):
        header, packs, records = layouts.decode_table(data)
        return kind, {**header, "packs": packs, "records": records}
    if kind == "pack":
        pack_kind, trailer = layouts.decode_pack_header(data), data[-64:]
        entries = layouts.decode_footer(data[layouts.decode_trailer(trailer, len(data))[0]:-64], trailer)
        for id, offset, stored, length, encoding, _ in entries:
            if encoding < 2:
                need(H(layouts.decode_record(data[offset:offset + stored], length, encoding)) == id, "hash", id.hex())
        return kind, {"kind": pack_kind, "entries": entries}
    if kind == "snapshots-index":
        return kind, layouts.decode_snapshot_index(data)
    if kind == "delta":
        return kind, deltas.decode_head(data, len(data))
    if kind == "delta-index":
        return kind, deltas.decode_index(data)
    value = layouts.Cbor(data).document()
    if type(value) is list:
        return "manifest-node", layouts.decode_node(data)
    need(type(value) is dict, "magic", "no object of this format")
    if "type" not in value:
        layouts.check_entry(value)
        return "entry", value
    decoders = {"evenkeel/format": layouts.decode_format, "evenkeel/segments": layouts.decode_segments_current,
                "evenkeel/manifest": layouts.decode_head, "evenkeel/snapshot": layouts.decode_snapshot}
    need(value["type"] in decoders, "magic", f"type {value['type']!r}")
    return value["type"].split("/")[1], decoders[value["type"]](data)


def run(args):
    if args.command == "decode":
        with open(args.file, "rb") as file:
            kind, value = decode(file.read())
        print(json.dumps({"object": kind, "value": plain(value)}, indent=1))
        return 0
    if args.command in ("check-vectors", "check-reject"):
        import vectors
        return vectors.check(args.dir, args.command == "check-reject")
    store, problems = Store(args.store), []
    if args.command == "deltas":
        for line in store.check_deltas():
            print(line)
        problems = list(store.notes)
        store.notes.clear()
    elif args.command == "list":
        for id, one in store.snapshots():
            areas = ",".join(area["name"] for area in one["areas"])
            print(id, one["time"][0], show(one["author"].encode()), areas, show(one["message"].encode()), sep="\t")
    else:
        _, snapshot = store.resolve(args.snapshot)
    if args.command == "ls":
        for area in snapshot["areas"]:
            for e in store.entries(area):
                what = f"{e[3]:04o}\t{e[4]}:{e[5]}\t{e.get(7, 0)}\t{e[6][0]}.{e[6][1]:09}" if e[1] != LINK else "\t\t\t"
                print(area["name"], "dflhpcbs"[e[1]], what, show(e[0]) or ".", sep="\t")
    elif args.command == "restore":
        areas = [area for area in snapshot["areas"] if area["name"] == args.area]
        need(areas, "value", f"no area {args.area}")
        target = Restore(store, args.dest)
        target.area(areas[0])
        problems = target.problems
    for line in store.notes + problems:
        print(f"note: {line}", file=sys.stderr)
    return 3 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, *arguments in (("list", "store"), ("deltas", "store"), ("ls", "store", "snapshot"), ("decode", "file"),
                             ("check-vectors", "dir"), ("restore", "store", "snapshot", "area", "dest"), ("check-reject", "dir")):
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument)
    try:
        return run(parser.parse_args())
    except BrokenPipeError:
        sys.stderr.close()  # nobody listens any more; nothing more to say
        return 0
    except (Reject, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
