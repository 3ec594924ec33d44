# SPDX-License-Identifier: Apache-2.0 OR MIT
"""DEFLATE streams as GNU gzip makes them (format-spec §70.14): a compressor, for what encoding 3 of deltas makes again."""

from cbor import need

TUNING = {4: (4, 4, 16, 16), 5: (8, 16, 32, 32), 6: (8, 16, 128, 128), 7: (8, 32, 128, 256), 8: (32, 128, 258, 1024), 9: (32, 258, 258, 4096)}
BACK = 32506
LENGTHS = [(3 + i, 0) for i in range(8)] + [(((4 + i % 4) << (1 + i // 4)) + 3, 1 + i // 4) for i in range(20)] + [(258, 0)]
DISTANCES = [(1 + i, 0) for i in range(4)] + [(((2 + i % 2) << (1 + i // 2)) + 1, 1 + i // 2) for i in range(26)]
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
REPEATS = {16: (2, 3), 17: (3, 3), 18: (7, 11)}


def code_of(table, value):
    """Code of a length or distance, its further bits, and how many these are."""
    code = max(i for i, (first, _) in enumerate(table) if first <= value)
    return code, value - table[code][0], table[code][1]


LENGTH_CODES = [None] * 3 + [code_of(LENGTHS, n) for n in range(3, 259)]


class Bits:
    def __init__(self, lead):
        self.out, self.held, self.count = bytearray(), 0, lead

    def put(self, value, count):
        self.held |= value << self.count
        self.count += count
        while self.count >= 8:
            self.out.append(self.held & 0xFF)
            self.held, self.count = self.held >> 8, self.count - 8

    def align(self):
        if self.count:
            self.put(0, 8 - self.count)


def code_lengths(counts, limit):
    """Lengths of codes, and the last symbol that has one."""
    heap = [n for n, count in enumerate(counts) if count]
    counts, depth, parent = list(counts), [0] * len(counts), {}
    symbols, last = len(counts), max(heap, default=-1)
    while len(heap) < 2:
        more = last + 1 if last < 2 else 0
        last = max(last, more)
        counts[more] = 1
        heap.append(more)

    def key(node):
        return counts[node], depth[node]

    def sink(at):
        node = heap[at]
        while 2 * at + 1 < len(heap):
            child = 2 * at + 1
            if child + 1 < len(heap) and key(heap[child + 1]) <= key(heap[child]):
                child += 1
            if key(node) <= key(heap[child]):
                break
            heap[at], at = heap[child], child
        heap[at] = node

    for at in range(len(heap) // 2 - 1, -1, -1):
        sink(at)
    taken = []
    while len(heap) > 1:
        first, end = heap[0], heap.pop()
        if heap:
            heap[0] = end
            sink(0)
        second, node = heap[0], len(counts)
        counts.append(counts[first] + counts[second])
        depth.append(max(depth[first], depth[second]) + 1)
        parent[first] = parent[second] = node
        taken += [first, second]
        heap[0] = node
        sink(0)
    lengths, of_length, over = [0] * len(counts), [0] * (limit + 2), 0
    for node in reversed(taken):
        length = lengths[parent[node]] + 1
        over += length > limit
        lengths[node] = min(length, limit)
        of_length[lengths[node]] += node < symbols
    if over:
        while over > 0:
            length = max(n for n in range(1, limit) if of_length[n])
            of_length[length] -= 1
            of_length[length + 1] += 2
            of_length[limit] -= 1
            over -= 2
        leaves = iter([node for node in taken if node < symbols])
        for length in range(limit, 0, -1):
            for _ in range(of_length[length]):
                lengths[next(leaves)] = length
    return lengths[:symbols], last


def codes(lengths):
    """Codes with their bits in the order of writing (RFC 1951, 3.2.2)."""
    code, out = 0, [0] * len(lengths)
    for length in range(1, 16):
        code <<= 1
        for n, own in enumerate(lengths):
            if own == length:
                out[n] = int(format(code, f"0{length}b")[::-1], 2)
                code += 1
    return out


def runs(lengths):
    """Codes that tell lengths: (code, further bits)."""
    out, at, before = [], 0, None
    while at < len(lengths):
        length, equal = lengths[at], 1
        while at + equal < len(lengths) and lengths[at + equal] == length:
            equal += 1
        most, least = (138, 3) if length == 0 else (6, 3) if length == before else (7, 4)
        count = min(equal, most)
        if count < least:
            out += [(length, 0)] * count
        elif length == 0:
            out.append((17, count - 3) if count <= 10 else (18, count - 11))
        elif length == before:
            out.append((16, count - 3))
        else:
            out += [(length, 0), (16, count - 4)]
        at, before = at + count, length
    return out


def write_block(symbols, plain, last, bits):
    literals, distances = [0] * 286, [0] * 30
    literals[256] = 1
    for length, distance in symbols:
        if distance:
            literals[257 + LENGTH_CODES[length][0]] += 1
            distances[code_of(DISTANCES, distance)[0]] += 1
        else:
            literals[length] += 1
    extra = [0] * 257 + [more for _, more in LENGTHS]
    fixed = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
    (own, own_last), (far, far_last) = code_lengths(literals, 15), code_lengths(distances, 15)
    told = runs(own[:own_last + 1]) + runs(far[:far_last + 1])
    tells = [0] * 19
    for code, _ in told:
        tells[code] += 1
    small = code_lengths(tells, 7)[0]
    count = max([n + 1 for n, code in enumerate(ORDER) if small[code]] + [4])
    further = sum(n * e for n, e in zip(literals, extra)) + sum(n * DISTANCES[i][1] for i, n in enumerate(distances))
    dynamic = sum(n * b for n, b in zip(literals, own)) + sum(n * b for n, b in zip(distances, far)) + further + 14 + 3 * count
    dynamic += sum(n * (small[code] + REPEATS.get(code, (0,))[0]) for code, n in enumerate(tells))
    simple = sum(n * b for n, b in zip(literals, fixed)) + 5 * sum(distances) + further
    d, f = (dynamic + 10) // 8, (simple + 10) // 8
    if len(plain) + 4 <= min(d, f) and len(plain) <= 0xFFFF:
        bits.put(last, 3)
        bits.align()
        bits.out += len(plain).to_bytes(2, "little") + (len(plain) ^ 0xFFFF).to_bytes(2, "little") + plain
        return
    if f <= d:
        bits.put(2 + last, 3)
        own, far = fixed, [5] * 30
    else:
        bits.put(4 + last, 3)
        for value, width in (own_last - 256, 5), (far_last, 5), (count - 4, 4):
            bits.put(value, width)
        for code in ORDER[:count]:
            bits.put(small[code], 3)
        small_codes = codes(small)
        for code, more in told:
            bits.put(small_codes[code], small[code])
            bits.put(more, REPEATS.get(code, (0,))[0])
    own_codes, far_codes = codes(own), codes(far)
    for length, distance in symbols:
        if not distance:
            bits.put(own_codes[length], own[length])
            continue
        code, more, width = LENGTH_CODES[length]
        bits.put(own_codes[257 + code], own[257 + code])
        bits.put(more, width)
        code, more, width = code_of(DISTANCES, distance)
        bits.put(far_codes[code], far[code])
        bits.put(more, width)
    bits.put(own_codes[256], own[256])


def part(data, window, ahead, level, before, lead, last):
    """Bytes of a part of a stream (§70.14.1)."""
    good, lazy, nice, chain = TUNING[level]
    end, padded = len(data) - ahead, data + bytes(600)
    need(before >= 2, "rule", "a match of less than two bytes")
    newest, older = {}, {}

    def insert(at):
        key = ((padded[at] << 10) ^ (padded[at + 1] << 5) ^ padded[at + 2]) & 0x7FFF
        candidate = older[at] = newest.get(key, 0)
        newest[key] = at
        return candidate

    def find(at, candidate, before, found):
        if candidate == 0 or before >= lazy or at - candidate > BACK:
            return 2, found
        best, left = before, chain // 4 if before >= good else chain
        while True:
            if padded[candidate + best - 1:candidate + best + 1] == padded[at + best - 1:at + best + 1]:
                n = 0
                while n < 258 and padded[candidate + n] == padded[at + n]:
                    n += 1
                if n > best:
                    best, found = n, candidate
                    if n >= nice:
                        break
            candidate, left = older[candidate], left - 1
            if candidate <= max(0, at - BACK) or not left:
                break
        best = min(best, len(data) - at)
        return (2 if best == 3 and at - found > 4096 else best), found

    for at in range(window):
        insert(at)
    bits, symbols, begin, matches, spread = Bits(lead), [], window, 0, 0
    at, length, found, waiting, first = window, before, 0, False, True
    while at < len(data):
        old, old_found, next_begin = length, found, None
        length, found = find(at, insert(at), old, found)
        looked, symbol = at, None
        need(not (first and old >= 3 and length <= old), "rule", "the part cannot begin there")
        if not first and old >= 3 and length <= old:
            symbol = (old, at - 1 - old_found)
            for place in range(at + 1, at + old - 1):
                insert(place)
            at += old - 1
            length, waiting, after = 2, False, at
        else:
            if waiting:
                symbol, after = (data[at - 1], 0), at
            waiting, at = True, at + 1
        first = False
        if symbol:
            symbols.append(symbol)
            if symbol[1]:
                matches += 1
                spread += 5 + code_of(DISTANCES, symbol[1])[2]
            s = len(symbols)
            guess = s % 4096 == 0 and matches < s // 2 and (8 * s + spread) // 8 < (looked - begin) // 2
            if guess or s == 32767 or matches == 32768:
                write_block(symbols, data[begin:after], 0, bits)
                symbols, begin, matches, spread = [], after, 0, 0
                if not last and begin >= end:
                    need(begin == end, "rule", "no block ends where the part does")
                    bits.align()
                    return bytes(bits.out)
    need(last, "rule", "no block ends where the part does")
    if waiting:
        symbols.append((data[at - 1], 0))
    write_block(symbols, data[begin:at], 1, bits)
    bits.align()
    return bytes(bits.out)
