// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One object, or one part of one, asked of all servers until one of them gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::Asked;
use super::client::{Cost, Got};
use super::mirrors;
use super::{Method, Servers, is_mutable};
use crate::backend::{Check, ObjectName, Seen, Teller, Whom};
use crate::error::{Error, Result, TransferError};

/// A server that rests after so many failures need not fail again before it is passed over.
const FAILURES_KNOWN: u32 = 3;

/// What came of asking everybody so far.
#[derive(Debug, Default)]
struct Outcome {
    /// Servers that would answer the same again.
    done: BTreeSet<usize>,
    /// Those that do not have it.
    missing: BTreeSet<usize>,
    /// Those that gave no byte, and how often.
    silent: BTreeMap<usize, u32>,
    /// Those whose part is not what it should be at a place that somebody told, and how that showed.
    suspects: Vec<(usize, String)>,
    wrong: Option<Error>,
    refused: Option<Error>,
    transient: Option<Error>,
    /// How long a server asks to be left alone.
    retry_after: Option<Duration>,
}

impl Outcome {
    /// The most that can be said when nobody gave what was asked for.
    fn verdict(self) -> Result<()> {
        match self.transient.or(self.wrong).or(self.refused) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Bytes so far, and who gave them.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    from: BTreeSet<usize>,
    /// Pieces of several servers did not fit together: each must give the whole.
    apart: bool,
}

/// One question.
struct Question<'q> {
    name: &'q ObjectName,
    asked: Asked,
    seen: Seen<'q>,
    check: Check<'q>,
}

impl Servers {
    /// Whether all servers answer for the same store, so that what one does not have none has. Mirrors may lag behind.
    fn is_one_store(&self) -> bool {
        self.addressing.is_some()
    }

    fn url(&self, at: usize, name: &ObjectName, method: Method) -> String {
        match &self.addressing {
            Some(addressing) => addressing.url(at, &name.to_string(), method),
            None => format!("{}{name}", self.mirrors[at].address),
        }
    }

    /// The number of the store's own address.
    fn own(&self) -> usize {
        self.mirrors.len() - 1
    }

    /// Servers in the order in which they are asked now.
    fn order(&self, own_first: bool) -> Vec<usize> {
        let now = self.options.timing.now();
        let mut order = mirrors::order(&self.mirrors, now);
        if own_first && !self.mirrors[self.own()].rests(now) {
            order.sort_by_key(|at| *at != self.own());
        }
        order
    }

    /// Whether it is clear that nobody has the object, although not everybody has answered: the store's own address does
    /// not have it, and the others do not answer. Of a list that may well not be there, any server's word will do.
    fn is_clear(&self, name: &ObjectName, outcome: &Outcome) -> bool {
        let any_will_do = matches!(name, ObjectName::DeltaIndex(_)) && !outcome.missing.is_empty();
        if !any_will_do && !outcome.missing.contains(&self.own()) {
            return false;
        }
        // What a mirror itself told of may be there only, and is worth asking it twice.
        let is_told = matches!(name, ObjectName::Pack(_) | ObjectName::Segment(_) | ObjectName::Delta(_));
        let (times, now) = (if is_told { 2 } else { 1 }, self.options.timing.now());
        self.mirrors.iter().enumerate().all(|(at, mirror)| {
            let is_known = mirror.rests(now) && (!is_told || mirror.failures() >= FAILURES_KNOWN);
            outcome.done.contains(&at) || is_known || outcome.silent.get(&at).is_some_and(|count| *count >= times)
        })
    }

    /// Asks until someone gives what `check` says yes to, and says who did; `None` when nobody has the object.
    pub(super) fn get(
        &self,
        name: &ObjectName,
        asked: Asked,
        whom: Whom<'_>,
        seen: Seen<'_>,
        check: Check<'_>,
    ) -> Result<Option<(Vec<u8>, Teller)>> {
        let (patience, timing) = (&self.options.patience, &self.options.timing);
        let deadline = timing.now() + patience.deadline;
        let mut outcome = Outcome { done: whom.but.iter().map(|teller| teller.0).collect(), ..Outcome::default() };
        let mut gathered = Gathered::default();
        let mut question = Question { name, asked, seen, check };
        for round in 0..patience.rounds.max(1) {
            outcome.retry_after = None;
            for at in self.order(whom.own_first) {
                if outcome.done.contains(&at) || (timing.now() >= deadline && outcome.transient.is_some()) {
                    continue;
                }
                if self.ask(at, &mut question, &mut gathered, &mut outcome)? {
                    // Now it is proved that this is the place, and that others gave something else.
                    for (other, why) in outcome.suspects {
                        self.mirrors[other].lied(why);
                    }
                    if whom.own_first && at != self.own() && !whom.but.contains(&Teller(self.own())) {
                        self.stand_in.get_or_init(|| (*name, self.mirrors[at].address.clone()));
                    }
                    return Ok(Some((gathered.bytes, Teller(at))));
                }
                if (self.is_one_store() && !outcome.missing.is_empty()) || self.is_clear(name, &outcome) {
                    // That somebody has it, but wrong, says more than that somebody else does not.
                    return outcome.wrong.map_or(Ok(None), Err);
                }
            }
            if outcome.done.len() == self.mirrors.len() || round + 1 >= patience.rounds {
                break;
            }
            let asked_for = outcome.retry_after.unwrap_or_default().min(patience.pause_max);
            let pause = mirrors::pause(patience, round, timing.random()).max(asked_for);
            if timing.now() + pause >= deadline {
                break;
            }
            timing.sleep(pause);
        }
        if outcome.done.len() == self.mirrors.len() {
            outcome.transient = None;
        }
        outcome.verdict().map(|()| None)
    }

    /// Asks one server. Gives whether `gathered` now holds everything.
    fn ask(
        &self,
        at: usize,
        question: &mut Question<'_>,
        gathered: &mut Gathered,
        outcome: &mut Outcome,
    ) -> Result<bool> {
        let (mirror, name, asked) = (&self.mirrors[at], question.name, question.asked);
        let failed = |source| Error::Fetch { object: name.to_string(), from: mirror.address.clone(), source };
        let rest = match asked {
            // Bytes that came before the end was lost need not come again.
            Asked::Part { start, len } if !gathered.apart && (gathered.bytes.len() as u64) < len => {
                let have = gathered.bytes.len() as u64;
                Asked::Part { start: start + have, len: len - have }
            }
            _ => {
                (gathered.bytes, gathered.from) = (Vec::new(), BTreeSet::new());
                asked
            }
        };
        let url = self.url(at, name, Method::Get);
        let (mut cost, before, start) = (Cost::default(), gathered.bytes.len(), self.options.timing.now());
        let got = self.client.get(&url, (rest, is_mutable(name)), &mut gathered.bytes, &mut *question.seen, &mut cost);
        mirror.count(&cost);
        let has_given = gathered.bytes.len() > before;
        if has_given {
            gathered.from.insert(at);
        }
        let is_web_page = match got {
            Ok(Got::Bytes { is_web_page }) => is_web_page,
            Ok(Got::Missing) => {
                outcome.missing.insert(at);
                outcome.done.insert(at);
                return Ok(false);
            }
            Err(error) => {
                if error.is_transient() {
                    let is_cut_off = matches!(error, TransferError::Truncated { .. });
                    let took = self.options.timing.now().saturating_sub(start);
                    self.has_failed(at, if is_cut_off { Duration::ZERO } else { took });
                    if !has_given {
                        *outcome.silent.entry(at).or_default() += 1;
                    }
                    outcome.retry_after = outcome.retry_after.max(error.retry_after());
                    outcome.transient = Some(failed(error));
                } else {
                    outcome.done.insert(at);
                    outcome.refused = Some(failed(error));
                }
                return Ok(false);
            }
        };
        match (question.check)(&gathered.bytes) {
            Ok(()) => {
                mirror.succeeded(&cost);
                Ok(true)
            }
            // Nobody's fault but ours.
            Err(error @ (Error::Interrupted | Error::Io { .. })) => Err(error),
            Err(_) if gathered.from.len() > 1 => {
                // Nobody knows whose piece is wrong.
                gathered.apart = true;
                self.ask(at, question, gathered, outcome)
            }
            Err(_) if is_web_page => {
                outcome.done.insert(at);
                outcome.refused = Some(failed(TransferError::WebPage));
                Ok(false)
            }
            Err(error) => {
                match asked {
                    Asked::Whole { .. } => mirror.lied(error.to_string()),
                    // That it is in that place somebody told, who may have been wrong.
                    Asked::Part { .. } => outcome.suspects.push((at, error.to_string())),
                }
                gathered.apart = true;
                outcome.done.insert(at);
                outcome.wrong = Some(error);
                Ok(false)
            }
        }
    }

    fn has_failed(&self, at: usize, wasted: Duration) {
        self.mirrors[at].failed(wasted, &self.options.patience, &*self.options.timing);
    }

    /// Length of an object, from the first server that tells.
    pub(super) fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        let (mut outcome, timing) = (Outcome::default(), &self.options.timing);
        for round in 0..self.options.patience.rounds.max(1) {
            for at in self.order(false) {
                if outcome.done.contains(&at) {
                    continue;
                }
                let mirror = &self.mirrors[at];
                let (mut cost, start) = (Cost::default(), timing.now());
                let found = self.client.len(&self.url(at, name, Method::Head), &mut cost);
                mirror.count(&cost);
                let failed = |source| Error::Fetch { object: name.to_string(), from: mirror.address.clone(), source };
                match found {
                    Ok(Some(len)) => return Ok(Some(len)),
                    Ok(None) if self.is_one_store() => return Ok(None),
                    Ok(None) => {
                        outcome.missing.insert(at);
                        outcome.done.insert(at);
                    }
                    Err(e) if e.is_transient() => {
                        self.has_failed(at, timing.now().saturating_sub(start));
                        *outcome.silent.entry(at).or_default() += 1;
                        outcome.transient = Some(failed(e));
                    }
                    Err(e) => {
                        outcome.done.insert(at);
                        outcome.refused = Some(failed(e));
                    }
                }
                if self.is_clear(name, &outcome) {
                    return Ok(None);
                }
            }
            if outcome.done.len() == self.mirrors.len() {
                outcome.transient = None;
                break;
            }
            timing.sleep(mirrors::pause(&self.options.patience, round, timing.random()));
        }
        outcome.verdict().map(|()| None)
    }
}
