// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A toy store, right and wrong: proof that the recorder sees what a missing sync does.
//!
//! Each generation is an object, then a `head` that names it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::{Checker, Crash, Marks, Place, Workload};

pub const SOUND: Toy = Toy { name: "toy", sync_files: true, sync_dirs: true };
pub const NO_FILE_SYNC: Toy = Toy { name: "toy-without-file-sync", sync_files: false, sync_dirs: true };
pub const NO_DIR_SYNC: Toy = Toy { name: "toy-without-dir-sync", sync_files: true, sync_dirs: false };

const GENERATIONS: usize = 40;

/// A protocol that keeps or leaves out one kind of sync.
#[derive(Debug)]
pub struct Toy {
    name: &'static str,
    sync_files: bool,
    sync_dirs: bool,
}

impl Toy {
    fn publish(&self, dir: &Path, name: &str, content: &[u8]) {
        let temporary = dir.join(format!("{name}.tmp"));
        let mut file = File::create(&temporary).unwrap();
        file.write_all(content).unwrap();
        if self.sync_files {
            file.sync_all().unwrap();
        }
        std::fs::rename(temporary, dir.join(name)).unwrap();
        if self.sync_dirs {
            File::open(dir).unwrap().sync_all().unwrap();
        }
    }
}

fn content(generation: usize) -> Vec<u8> {
    evenkeel_tests::noise(generation as u64, 3000 + generation * 100)
}

impl Workload for Toy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_broken(&self) -> bool {
        !(self.sync_files && self.sync_dirs)
    }

    fn weight(&self) -> u64 {
        1
    }

    fn prepare(&self, _: Place<'_>) {}

    fn run(&self, place: Place<'_>, marks: &dyn Marks) {
        for generation in 1..=GENERATIONS {
            marks.begin();
            self.publish(place.inside, &format!("object-{generation}"), &content(generation));
            self.publish(place.inside, "head", generation.to_string().as_bytes());
            marks.acknowledge();
        }
    }

    fn checker(&self, _: Place<'_>) -> Box<dyn Checker> {
        Box::new(Head)
    }
}

struct Head;

impl Checker for Head {
    fn check(&self, place: Place<'_>, crash: Crash) {
        let head = match std::fs::read_to_string(place.inside.join("head")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && crash.acknowledged == 0 => return,
            head => head.unwrap(),
        };
        let generation: usize = head.parse().unwrap_or_else(|_| panic!("head is {head:?}"));
        assert!(generation >= crash.acknowledged, "{} was acknowledged, head is {generation}", crash.acknowledged);
        let object = std::fs::read(place.inside.join(format!("object-{generation}"))).unwrap();
        assert!(object == content(generation), "object {generation} is torn");
    }
}
