# SPDX-License-Identifier: Apache-2.0 OR MIT
"""The chunker (§60), and comparison of the decoders with `vectors/` and `reject/`."""
import hashlib
import os
import tomllib

import blake3

import deltas
import layouts
from layouts import CHUNK_MAX, H, Reject, need

# ---- 60 Chunking ----------------------------------------------------------------------------------------------------

GEAR = [int.from_bytes(hashlib.md5(bytes([i]) * 64).digest()[:8], "big") for i in range(256)]
MASKS = [int(word, 16) for word in """
0000590003530000 0000d90003530000 0000d90103530000 0000d90303530000 0000d90313530000 0000d90f03530000 0000d90303537000
0000d90703537000 0000d90707537000 0000d91707537000 0000d91747537000 0000d91767537000 0000d93767537000 0000d93777537000
0000d93777577000 0000db3777577000""".split()]


def cut(run, start, params):
    """Length of the chunk that begins at `start` of a data run (§60.4)."""
    n = min(len(run) - start, params["max"])
    if n <= params["min"]:
        return n
    center, bits = min(params["avg"], n), params["avg"].bit_length() - 1
    small, large = (MASKS[bits + sign * params["normalization"] - 10] for sign in (1, -1))
    h = 0
    for low, high, mask in ((params["min"], center, small), (center, n - n % 2, large)):
        for i in range(low, min(high, n - n % 2)):
            h = 2 * h + GEAR[run[start + i]] & layouts.U64
            if h & mask == 0:
                return i
    return n


def cuts(run, params):
    lengths, at = [], 0
    while at < len(run):
        lengths.append(cut(run, at, params))
        at += lengths[-1]
    return lengths


# ---- Decoded values as the .toml beside a vector lists them -----------------------------------------------------------

ENCODINGS = ("raw", "zstd", "zstd-dictionary")
PACK_KINDS = {1: "data", 2: "manifest"}
KINDS = ("directory", "file", "symlink", "link", "fifo", "character device", "block device", "socket")
TAGS = {1: "owner", 2: "user", 4: "owning-group", 8: "group", 16: "mask", 32: "other"}


def either(name, data):
    """Bytes under their name where they are text, else in hex under another."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {name + "-hex": data.hex()}


def place(id, offset, stored, length, encoding, dictionary):
    told = {"id": id.hex(), "offset": offset, "stored-len": stored, "plain-len": length, "encoding": ENCODINGS[encoding]}
    return told | ({"dictionary": dictionary.hex()} if dictionary else {})


def plain_params(chunker):
    return {key: chunker[key] for key in ("min", "avg", "max", "normalization")}


def tell_format(data):
    value = layouts.decode_format(data)
    kept = {key: value[key] for key in ("pack-size", "must-write", "ignorable")}
    return {"store": value["store"].hex(), **kept, "chunker": plain_params(value["chunker"])}


def tell_segments_current(data):
    value = layouts.decode_segments_current(data)
    return {"store": value["store"].hex(), "generation": value["generation"],
            "segments": [one | {"id": one["id"].hex()} for one in value["segments"]],
            "condemned": [one | {"pack": one["pack"].hex()} for one in value["condemned"]]}


def pack_parts(data):
    trailer = data[-64:]
    start = layouts.decode_trailer(trailer, len(data))[0]
    return layouts.decode_pack_header(data), layouts.decode_footer(data[start:-64], trailer)


def tell_pack(data):
    kind, entries = pack_parts(data)
    known = {}
    for id, offset, stored, length, encoding, dictionary in entries:  # dictionaries stand before their users here
        plain = layouts.decode_record(data[offset:offset + stored], length, encoding, known.get(dictionary))
        need(H(plain) == id, "hash", f"chunk {id.hex()}")
        known[id] = plain
    return {"kind": PACK_KINDS[kind], "entries": [place(*entry) for entry in entries]}


def tell_table(data):
    header, packs, records = layouts.decode_table(data)
    told = {"packs": [{"id": id.hex(), "file-len": size, "kind": PACK_KINDS[kind]} for id, size, kind in packs],
            "records": [place(r[0], *r[2:]) | {"pack": packs[r[1]][0].hex()} for r in records]}
    if header["kind"] == "locator":
        told |= {"snapshot": header["snapshot"].hex(), "full": header["full"]}
        told |= {} if header["full"] else {"base": header["base"].hex(), "steps": header["steps"]}
    return told


def tell_head(data):
    value = layouts.decode_head(data)
    names = {key: [{"id": id} | either("name", name) for id, name in value[key].items()] for key in ("users", "groups")}
    return {"root": value["root"].hex(), **{key: value[key] for key in ("root-len", "level", "entries")}, **names}


def tell_entry(entry):
    told = either("path", entry[0]) | {"kind": KINDS[entry[1]]}
    if entry[1] == layouts.LINK:
        return told | either("first", entry[2])
    told |= {"mode": f"{entry[3]:04o}", "uid": entry[4], "gid": entry[5], "mtime": entry[6], "flags": entry.get(17, [])}
    if entry[1] == layouts.FILE:
        told |= {"size": entry[7], "hash": entry.get(8, H(b"")).hex(), "unstable": 18 in entry}
    if 9 in entry:
        runs = layouts.decode_runs(entry[9], None if 10 in entry else entry[7])
        told["chunks"] = [{"id": id.hex(), "len": size} if id else {"hole": True, "len": size} for id, size in runs]
    told |= {"list-depth": entry[10]} if 10 in entry else {}
    told |= either("target", entry[11]) if 11 in entry else {}
    told |= {"device": entry[12]} if 12 in entry else {}
    told |= {"links": entry[13]} if 13 in entry else {}
    for key, name in ((15, "acl"), (16, "default-acl")):
        if key in entry:
            told[name] = [" ".join(map(str, (TAGS[ace[0]], *ace[2:], ace[1]))) for ace in entry[key]]
    if 14 in entry:
        told["xattrs"] = [either("name", name) | {"value": value.hex()} for name, value in sorted(entry[14].items())]
    return told


def tell_node(data):
    level, items = layouts.decode_node(data)
    if level:
        return {"level": level, "children": [either("first", child[0]) | {
            "id": child[1].hex(), "plain-len": child[2], "entries": child[3]} for child in items]}
    return {"level": 0, "entries": [tell_entry(entry) for entry in items]}


def tell_snapshot(data):
    value = layouts.decode_snapshot(data)
    areas = [{key: one for key, one in (area | area["rules"]).items() if key not in ("rules", "root", "manifest")}
             | either("root", area["root"]) | {"manifest": area["manifest"].hex()} for area in value["areas"]]
    kept = {key: value[key] for key in ("depth", "time", "author", "message", "labels")}
    parent = {"parent": value["parent"].hex()} if "parent" in value else {}
    return {**parent, **kept, "chunker": plain_params(value["chunker"]), "areas": areas}


def tell_index(data):
    return {"records": [{"id": id.hex(), "time": time, "document-len": size}
                        | ({"parent": parent.hex()} if parent != layouts.ZERO else {})
                        for id, parent, time, size in layouts.decode_snapshot_index(data)]}


def tell_chunks(chunks):
    return [f"{id.hex()} {length}" for id, length in chunks]


def tell_delta(data):
    base, target, frames = deltas.decode_head(data, len(data))
    for _, _, _, at, length, digest in frames:
        need(H(data[at:at + length])[:16] == digest, "hash", "payload of a delta")
    # The bases of a vector are outputs of frames before.
    made, notes = deltas.chunks(data, lambda id: None)
    due = [id for outputs, _, encoding, *_ in frames for id, _ in outputs if encoding <= deltas.AGAIN]
    need(set(made) == set(due), "hash", f"frames of a vector: {notes}")
    told = {"target": target.hex()} | ({"base": base.hex()} if base else {})
    return told | {"frames": [{"encoding": encoding, "payload-offset": at, "payload-len": length,
                               "outputs": tell_chunks(outputs), "bases": tell_chunks(bases)}
                              for outputs, bases, encoding, at, length, _ in frames]}


def tell_delta_index(data):
    target, entries = deltas.decode_index(data)
    return {"target": target.hex(), "entries": [
        {"delta": delta.hex(), "head-len": head_len, "file-len": file_len} | ({"base": base.hex()} if base else {})
        for base, delta, head_len, file_len in entries]}


TELL = {"format": tell_format, "segments-current": tell_segments_current, "pack": tell_pack, "segment": tell_table,
        "locator": tell_table, "manifest-head": tell_head, "manifest-node": tell_node, "snapshot": tell_snapshot,
        "snapshot-index": tell_index, "delta": tell_delta, "delta-index": tell_delta_index}


def differences(expected, found, where=""):
    """Where two decoded values differ; a list or map that is empty may be left out."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            yield from differences(expected.get(key, []), found.get(key, []), f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found)):
            yield from differences(one, other, f"{where}[{index}]")
    elif expected != found and (expected or found):
        yield f"{where}: {expected!r} is due, {found!r} found"


def check_vector(expected, data):
    if expected["object"] != "chunker":
        found = TELL[expected["object"]](data) | {"object": expected["object"], "len": len(data), "blake3": H(data).hex()}
        return list(differences(expected, found))
    problems = []
    for one in expected["inputs"]:
        seed = one.get("seed", "").encode("ascii")
        run = bytes(one["len"]) if one.get("zeros") else blake3.blake3(seed).digest(length=one["len"])
        if H(run).hex() != one["blake3"]:
            problems.append(f"input {one.get('seed')}: another hash")
        elif cuts(run, expected) != one["lengths"]:
            problems.append(f"input {one.get('seed')}: {cuts(run, expected)} found")
    return problems


def refuse(case, data):
    """Decodes what must not decode."""
    kind = case["object"]
    if kind == "chunk-list":
        layouts.decode_runs(data, int(case["size"]), whole_file=False)
    elif kind == "record":
        need(1 <= case["plain-len"] <= CHUNK_MAX, "limit", f"a chunk of {case['plain-len']} bytes")
        layouts.decode_record(data, case["plain-len"], ENCODINGS.index(case["encoding"]))
    elif kind == "manifest":
        structure = layouts.Structure()
        for entry in layouts.decode_node(data)[1]:
            structure.push(entry)
        structure.finish()
    elif kind == "pack":
        pack_parts(data)
    else:
        TELL[kind](data)


def check_reject(case, data):
    try:
        refuse(case, data)
    except Reject as error:
        # Which of several broken rules is named is free, but newer is not damaged (§00.7).
        about_age = {error.kind, case["reason"]} & {"version", "feature"}
        return [f"refused as {error}, not {case['reason']}"] if about_age and error.kind != case["reason"] else []
    return [f"accepted, not refused as {case['reason']}"]


def check(directory, rejects):
    """Checks every .toml of a directory with the .bin beside it; prints what is wrong and a summary."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".toml"))
    failed = 0
    for name in names:
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            expected = tomllib.load(file)
        data = b""
        if expected["object"] != "chunker":
            with open(path[:-5] + ".bin", "rb") as file:
                data = file.read()
        try:
            problems = check_reject(expected, data) if rejects else check_vector(expected, data)
        except Reject as error:
            problems = [f"refused: {error}"]
        for problem in problems:
            print(f"{name}: {problem}")
        failed += bool(problems)
    print(f"{len(names)} files, {failed} wrong")
    return 1 if failed or not names else 0
