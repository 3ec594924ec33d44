// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Some of many cases, others each time: a test that cannot take them all takes all of them in time.
//!
//! `EVENKEEL_SWEEP=all` takes every case. `EVENKEEL_SEED=N` takes those of an earlier run, which printed its seed.

use std::sync::OnceLock;

/// The seed of this run.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("EVENKEEL_SEED") {
        Ok(text) => text.parse().expect("EVENKEEL_SEED is a number"),
        Err(_) => u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap(),
    })
}

/// Whether every case was asked for.
pub fn takes_all() -> bool {
    std::env::var_os("EVENKEEL_SWEEP").is_some_and(|value| value == "all")
}

/// `many` of `all`, in their order: one of each of as many equal parts, by chance. Says which seed it was.
pub fn sample<T>(what: &str, all: Vec<T>, many: usize) -> Vec<T> {
    let count = all.len();
    if takes_all() || count <= many {
        println!("{what}: all {count} cases");
        return all;
    }
    println!("{what}: {many} of {count} cases, EVENKEEL_SEED={}", seed());
    let mut chance = blake3::Hasher::new().update(&seed().to_le_bytes()).update(what.as_bytes()).finalize_xof();
    let mut chosen = (0..many).map(|part| {
        let (begin, end) = (part * count / many, (part + 1) * count / many);
        let mut number = [0; 4];
        chance.fill(&mut number);
        begin + usize::try_from(u32::from_le_bytes(number)).unwrap() % (end - begin)
    });
    let mut next = chosen.next();
    let is_chosen = |(at, _): &(usize, T)| {
        let is_it = next == Some(*at);
        if is_it {
            next = chosen.next();
        }
        is_it
    };
    all.into_iter().enumerate().filter(is_chosen).map(|(_, case)| case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_were_asked_for_in_order() {
        for many in [1, 2, 7, 99, 100, 101] {
            let chosen = sample("a test", (0..100).collect(), many);
            assert!(takes_all() || chosen.len() == many.min(100), "{many}: {chosen:?}");
            assert!(chosen.is_sorted_by(|a, b| a < b), "{chosen:?}");
        }
    }
}
