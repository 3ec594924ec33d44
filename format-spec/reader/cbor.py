# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Deterministic CBOR (§00.5) and the checks of shape that schema.cddl states."""

U64 = (1 << 64) - 1


class Reject(Exception):
    """An object breaks a rule; `kind` is the word that `reject/` uses."""

    def __init__(self, kind, text):
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def need(condition, kind, text):
    if not condition:
        raise Reject(kind, text)


class Cbor:
    """Deterministic CBOR (§00.5). Bytes, text, integers, booleans, lists and dicts; nothing else exists."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def document(self):
        value = self.item(0)
        need(self.at == len(self.data), "trailing", f"bytes after the item at {self.at}")
        return value

    def take(self, count):
        need(count <= len(self.data) - self.at, "truncated", f"{count} bytes wanted at {self.at}")
        self.at += count
        return self.data[self.at - count:self.at]

    def item(self, depth):
        need(depth <= 16, "limit", "nested too deeply")
        start = self.at
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            need(first in (0xF4, 0xF5), "canonical", f"simple value or float at {start}")
            return first == 0xF5
        need(major != 6, "canonical", f"tag at {start}")
        need(info < 28, "canonical", f"indefinite length or reserved head at {start}")
        number = info
        if info >= 24:
            width = 1 << (info - 24)
            number = int.from_bytes(self.take(width), "big")
            need(number >= (24 if width == 1 else 1 << (4 * width)), "canonical", f"long form at {start}")
        if major < 2:
            return number if major == 0 else -1 - number
        if major == 2:
            return self.take(number)
        if major == 3:
            try:
                return self.take(number).decode("utf-8")
            except UnicodeDecodeError:
                raise Reject("canonical", f"text at {start} is not UTF-8") from None
        need(number <= len(self.data) - self.at, "truncated", f"{number} items wanted at {start}")
        if major == 4:
            return [self.item(depth + 1) for _ in range(number)]
        result, last = {}, None
        for _ in range(number):
            key_at = self.at
            key = self.item(depth + 1)
            encoded = self.data[key_at:self.at]
            need(type(key) in (int, bytes, str), "rule", f"key of a wrong type at {key_at}")
            need(last is None or last < encoded, "canonical", f"map keys out of order at {key_at}")
            last = encoded
            result[key] = self.item(depth + 1)
        return result


# Shapes: functions that check a decoded value, as schema.cddl says.

def uint(low=0, high=U64):
    def check(value, where):
        need(type(value) is int, "rule", f"{where}: not an integer")
        need(low <= value <= high, "value", f"{where}: {value} is not allowed")
    return check


def string(kind, low, high):
    def check(value, where):
        need(type(value) is kind, "rule", f"{where}: wrong type")
        size = len(value if kind is bytes else value.encode())
        need(size <= high, "limit" if low != high else "value", f"{where}: {size} bytes")
        need(size >= low, "value", f"{where}: {size} bytes")
    return check


def only(*allowed, kind="value"):
    def check(value, where):
        need(any(type(value) is type(one) and value == one for one in allowed), kind, f"{where}: {value!r} not allowed")
    return check


def array(item, low=0, high=U64, order=None):
    def check(value, where):
        need(type(value) is list, "rule", f"{where}: not a list")
        need(len(value) <= high, "limit", f"{where}: {len(value)} items")
        need(len(value) >= low, "rule", f"{where}: too few items")
        for index, one in enumerate(value):
            item(one, f"{where}[{index}]")
        if order:
            need(all(order(a) < order(b) for a, b in zip(value, value[1:])), "canonical", f"{where}: out of order")
    return check


def pair(*items):
    def check(value, where):
        need(type(value) is list and len(value) == len(items), "value", f"{where}: not a list of {len(items)}")
        for item, one in zip(items, value):
            item(one, where)
    return check


def mapping(key, item, low=0, high=U64):
    def check(value, where):
        need(type(value) is dict, "rule", f"{where}: not a map")
        need(len(value) <= high, "limit", f"{where}: {len(value)} keys")
        need(len(value) >= low, "rule", f"{where}: too few keys")
        for name, one in value.items():
            key(name, f"{where} key")
            item(one, f"{where}[{name!r}]")
    return check


def record(required, optional={}):
    def check(value, where):
        need(type(value) is dict, "rule", f"{where}: not a map")
        for name in required:
            need(name in value, "rule", f"{where}: {name} is missing")
        for name, one in value.items():
            need(name in required or name in optional, "rule", f"{where}: unknown key {name!r}")
            (required.get(name) or optional[name])(one, f"{where}.{name}")
    return check


def boolean(value, where):
    need(type(value) is bool, "rule", f"{where}: not a boolean")
