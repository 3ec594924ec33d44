// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The symbols of one block → its bits: codes by length, and which kind of block is shortest (format-spec §70.14.3).

use super::bits::BitWriter;

/// Literals, the end of a block, and lengths.
const LITERAL_CODES: usize = 286;
/// Distances.
const DISTANCE_CODES: usize = 30;
/// Lengths of codes, and repetitions.
const LENGTH_CODES: usize = 19;
const END_BLOCK: usize = 256;
/// Longest code of literals and distances, and of lengths of codes, in bits.
const BITS_MAX: u8 = 15;
const LENGTH_BITS_MAX: u8 = 7;
/// Most bytes of a stored block.
const STORED_MAX: usize = 0xffff;

/// More bits of a length, by its code from 257.
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// More bits of a distance, by its code.
pub(super) const DISTANCE_EXTRA: [u8; DISTANCE_CODES] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
/// More bits of a repetition, by its code.
const REPEAT_EXTRA: [u8; LENGTH_CODES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7];
/// The order in which the lengths of the codes of lengths are told.
const LENGTH_ORDER: [usize; LENGTH_CODES] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What a block consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Literal(u8),
    /// A length from 3 and a distance from 1.
    Match(u16, u16),
}

/// The symbols of a block under way, and how often each code occurs.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) symbols: Vec<Symbol>,
    pub(super) matches: usize,
    literals: [u32; LITERAL_CODES],
    pub(super) distances: [u32; DISTANCE_CODES],
}

impl Block {
    pub(super) fn new() -> Self {
        let mut literals = [0; LITERAL_CODES];
        literals[END_BLOCK] = 1;
        Block { symbols: Vec::new(), matches: 0, literals, distances: [0; DISTANCE_CODES] }
    }

    pub(super) fn push(&mut self, symbol: Symbol) {
        match symbol {
            Symbol::Literal(byte) => self.literals[usize::from(byte)] += 1,
            Symbol::Match(len, distance) => {
                self.literals[END_BLOCK + 1 + length_code(len).0] += 1;
                self.distances[distance_code(distance).0] += 1;
                self.matches += 1;
            }
        }
        self.symbols.push(symbol);
    }

    /// Writes the block, which stands for `plain`, as what is shortest.
    pub(super) fn write(self, plain: &[u8], is_last: bool, out: &mut BitWriter) {
        let literals = Codes::new(&self.literals, length_extra, BITS_MAX);
        let distances = Codes::new(&self.distances, |code| DISTANCE_EXTRA[code], BITS_MAX);
        let mut lengths = [0; LENGTH_CODES];
        for codes in [&literals, &distances] {
            runs(&codes.lens[..=codes.max], |code, _| lengths[code] += 1);
        }
        let lengths = Codes::new(&lengths, |code| REPEAT_EXTRA[code], LENGTH_BITS_MAX);
        let told = (3..LENGTH_CODES).rev().find(|at| lengths.lens[LENGTH_ORDER[*at]] != 0).unwrap_or(3) + 1;
        let dynamic_bits = literals.bits + distances.bits + lengths.bits + 3 * told as u64 + 14;
        let fixed_bits = self.fixed_bits();
        let in_bytes = |bits: u64| (bits + 3).div_ceil(8);
        let (dynamic_len, fixed_len) = (in_bytes(dynamic_bits), in_bytes(fixed_bits));
        let last = u32::from(is_last);
        if plain.len() as u64 + 4 <= dynamic_len.min(fixed_len) && plain.len() <= STORED_MAX {
            out.put(last, 3);
            out.stored(plain);
        } else if fixed_len <= dynamic_len {
            out.put(2 + last, 3);
            self.compressed(&Codes::fixed_literals(), &Codes::fixed_distances(), out);
        } else {
            out.put(4 + last, 3);
            let [literals_n, distances_n] = [&literals, &distances].map(|codes| codes.max + 1);
            for (count, least, bits) in [(literals_n, 257, 5), (distances_n, 1, 5), (told, 4, 4)] {
                out.put(u32::try_from(count - least).expect("a number of codes"), bits);
            }
            LENGTH_ORDER[..told].iter().for_each(|code| out.put(lengths.lens[*code].into(), 3));
            for codes in [&literals, &distances] {
                runs(&codes.lens[..=codes.max], |code, more| {
                    lengths.put(code, out);
                    out.put(more, REPEAT_EXTRA[code]);
                });
            }
            self.compressed(&literals, &distances, out);
        }
    }

    /// Length with fixed codes, in bits.
    fn fixed_bits(&self) -> u64 {
        let fixed = Codes::fixed_literals();
        let of_literals =
            |(code, count): (usize, &u32)| u64::from(fixed.lens[code] + length_extra(code)) * u64::from(*count);
        let of_distances = |(code, count): (usize, &u32)| u64::from(5 + DISTANCE_EXTRA[code]) * u64::from(*count);
        self.literals.iter().enumerate().map(of_literals).sum::<u64>()
            + self.distances.iter().enumerate().map(of_distances).sum::<u64>()
    }

    fn compressed(&self, literals: &Codes, distances: &Codes, out: &mut BitWriter) {
        for symbol in &self.symbols {
            match *symbol {
                Symbol::Literal(byte) => literals.put(byte.into(), out),
                Symbol::Match(len, distance) => {
                    let (code, more) = length_code(len);
                    literals.put(END_BLOCK + 1 + code, out);
                    out.put(more, LENGTH_EXTRA[code]);
                    let (code, more) = distance_code(distance);
                    distances.put(code, out);
                    out.put(more, DISTANCE_EXTRA[code]);
                }
            }
        }
        literals.put(END_BLOCK, out);
    }
}

fn length_extra(code: usize) -> u8 {
    code.checked_sub(END_BLOCK + 1).map_or(0, |code| LENGTH_EXTRA[code])
}

/// Code from 257 of a length, and what its further bits are.
fn length_code(len: u16) -> (usize, u32) {
    if len == 258 {
        return (28, 0);
    }
    let len = u32::from(len) - 3;
    if len < 8 {
        return (len as usize, 0);
    }
    let bits = len.ilog2() - 2;
    ((4 * bits + (len >> bits)) as usize, len & ((1 << bits) - 1))
}

/// Code of a distance, and what its further bits are.
pub(super) fn distance_code(distance: u16) -> (usize, u32) {
    let distance = u32::from(distance) - 1;
    if distance < 4 {
        return (distance as usize, 0);
    }
    let bits = distance.ilog2() - 1;
    ((2 * bits + (distance >> bits)) as usize, distance & ((1 << bits) - 1))
}

/// Lengths of codes as they are told: the code of a length or of a repetition, and what its further bits are.
fn runs(lens: &[u8], mut tell: impl FnMut(usize, u32)) {
    let mut before = None;
    let mut at = 0;
    while at < lens.len() {
        let len = lens[at];
        let equal = lens[at..].iter().take_while(|other| **other == len).count();
        // The first of equal ones that are not zero is told itself, unless the one before them was equal, too.
        let (most, least) = match (len, before == Some(len)) {
            (0, _) => (138, 3),
            (_, true) => (6, 3),
            (_, false) => (7, 4),
        };
        let count = equal.min(most);
        at += count;
        if count < least {
            (0..count).for_each(|_| tell(len.into(), 0));
        } else if len == 0 {
            let count = u32::try_from(count).expect("at most 138");
            if count <= 10 { tell(17, count - 3) } else { tell(18, count - 11) }
        } else {
            let repeated = if before == Some(len) { count } else { count - 1 };
            if before != Some(len) {
                tell(len.into(), 0);
            }
            tell(16, u32::try_from(repeated - 3).expect("at most 6"));
        }
        before = Some(len);
    }
}

/// A prefix code.
#[derive(Debug, Clone)]
struct Codes {
    lens: Vec<u8>,
    codes: Vec<u16>,
    /// The last code that has a length.
    max: usize,
    /// What all symbols take with it, their further bits included.
    bits: u64,
}

impl Codes {
    /// A code in which no length is above `bits_max`, for symbols that occur `counts` times.
    fn new(counts: &[u32], extra: impl Fn(usize) -> u8, bits_max: u8) -> Codes {
        let tree = Tree::new(counts);
        let lens = tree.lens(bits_max);
        let of = |(code, count): (usize, &u32)| u64::from(*count) * u64::from(lens[code] + extra(code));
        let bits = counts.iter().enumerate().map(of).sum();
        Codes { codes: codes(&lens), max: tree.max, bits, lens }
    }

    fn of_lens(lens: Vec<u8>) -> Codes {
        Codes { codes: codes(&lens), max: lens.len() - 1, bits: 0, lens }
    }

    fn fixed_literals() -> Codes {
        let len = |code| match code {
            0..=143 | 280.. => 8,
            144..=255 => 9,
            _ => 7,
        };
        Codes::of_lens((0..288).map(len).collect())
    }

    fn fixed_distances() -> Codes {
        Codes::of_lens(vec![5; DISTANCE_CODES])
    }

    fn put(&self, code: usize, out: &mut BitWriter) {
        out.put(self.codes[code].into(), self.lens[code]);
    }
}

/// Codes of given lengths, their bits in the order in which they are written (RFC 1951, 3.2.2).
fn codes(lens: &[u8]) -> Vec<u16> {
    let mut next = [0_u16; BITS_MAX as usize + 1];
    for bits in 1..next.len() {
        let shorter = lens.iter().filter(|len| usize::from(**len) == bits - 1 && bits > 1).count();
        next[bits] = (next[bits - 1] + u16::try_from(shorter).expect("a number of codes")) << 1;
    }
    let code = |len: &u8| {
        if *len == 0 {
            return 0;
        }
        let code = next[usize::from(*len)];
        next[usize::from(*len)] += 1;
        code.reverse_bits() >> (16 - u32::from(*len))
    };
    lens.iter().map(code).collect()
}

/// A Huffman tree, with ties broken as the specification says. Node 0..n are the symbols, further ones their parents.
struct Tree {
    counts: Vec<u32>,
    parent: Vec<usize>,
    /// Nodes in the order in which they were joined, the last two first; the root is the first.
    order: Vec<usize>,
    max: usize,
    symbols: usize,
}

impl Tree {
    fn new(counts: &[u32]) -> Tree {
        let symbols = counts.len();
        let mut counts = counts.to_vec();
        let mut depth = vec![0_u8; symbols];
        let mut leaves: Vec<usize> = (0..symbols).filter(|code| counts[*code] > 0).collect();
        let mut max = leaves.last().copied();
        // At least two codes, the first two that may be.
        while leaves.len() < 2 {
            let code = match max {
                None => 0,
                Some(known) if known < 2 => known + 1,
                Some(_) => 0,
            };
            max = max.max(Some(code));
            counts[code] = 1;
            leaves.push(code);
        }
        let mut heap = Heap { nodes: leaves };
        heap.order(&counts, &depth);
        let (mut parent, mut joined) = (vec![0; symbols], Vec::new());
        while heap.nodes.len() > 1 {
            let first = heap.take_first(&counts, &depth);
            let second = heap.nodes[0];
            joined.extend([first, second]);
            let node = counts.len();
            counts.push(counts[first] + counts[second]);
            depth.push(depth[first].max(depth[second]) + 1);
            parent.push(0);
            (parent[first], parent[second]) = (node, node);
            heap.nodes[0] = node;
            heap.sink(0, &counts, &depth);
        }
        joined.push(heap.nodes[0]);
        joined.reverse();
        Tree { counts, parent, order: joined, max: max.unwrap_or(0), symbols }
    }

    /// The length of each symbol's code.
    fn lens(&self, bits_max: u8) -> Vec<u8> {
        let mut lens = vec![0_u8; self.counts.len()];
        let (mut of_len, mut overflow) = ([0_usize; BITS_MAX as usize + 2], 0_i64);
        for node in &self.order[1..] {
            let len = lens[self.parent[*node]] + 1;
            overflow += i64::from(len > bits_max);
            lens[*node] = len.min(bits_max);
            if *node < self.symbols {
                of_len[usize::from(lens[*node])] += 1;
            }
        }
        let most = usize::from(bits_max);
        if overflow > 0 {
            while overflow > 0 {
                let bits = (1..most).rev().find(|bits| of_len[*bits] > 0).expect("a code has shorter ones");
                of_len[bits] -= 1;
                of_len[bits + 1] += 2;
                of_len[most] -= 1;
                overflow -= 2;
            }
            let mut leaves = self.order.iter().rev().filter(|node| **node < self.symbols);
            for bits in (1..=most).rev() {
                for leaf in leaves.by_ref().take(of_len[bits]) {
                    lens[*leaf] = u8::try_from(bits).expect("at most 15");
                }
            }
        }
        lens.truncate(self.symbols);
        lens
    }
}

/// A heap with its smallest node first.
struct Heap {
    nodes: Vec<usize>,
}

impl Heap {
    fn order(&mut self, counts: &[u32], depth: &[u8]) {
        (0..self.nodes.len() / 2).rev().for_each(|at| self.sink(at, counts, depth));
    }

    fn take_first(&mut self, counts: &[u32], depth: &[u8]) -> usize {
        let first = self.nodes.swap_remove(0);
        self.sink(0, counts, depth);
        first
    }

    /// Moves a node down as long as a smaller one is below it. Of equal ones the less deep is smaller.
    fn sink(&mut self, mut at: usize, counts: &[u32], depth: &[u8]) {
        let key = |node: usize| (counts[node], depth[node]);
        let node = self.nodes[at];
        loop {
            let mut below = 2 * at + 1;
            if below >= self.nodes.len() {
                break;
            }
            if below + 1 < self.nodes.len() && key(self.nodes[below + 1]) <= key(self.nodes[below]) {
                below += 1;
            }
            if key(node) <= key(self.nodes[below]) {
                break;
            }
            self.nodes[at] = self.nodes[below];
            at = below;
        }
        self.nodes[at] = node;
    }
}
