// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Journals that are damaged: what is said of them, and what is done.

use std::path::{Path, PathBuf};

use evenkeel_store::checkout::{AreaTarget, JournalState, Mode, journal_state};
use evenkeel_tests::Place;
use evenkeel_tests::operation::{Operation, releases};

fn state_of(place: &Place<'_>) -> PathBuf {
    std::fs::read_dir(place.state.join("areas")).unwrap().next().unwrap().unwrap().path()
}

/// Every regular file's content below a directory.
fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let inside = |entry: std::fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => contents(&entry.path()),
        kind if kind.is_file() => vec![std::fs::read(entry.path()).unwrap()],
        _ => Vec::new(),
    };
    std::fs::read_dir(dir).unwrap().flat_map(|entry| inside(entry.unwrap())).collect()
}

/// One flipped bit in the journal of an interrupted switch was a dead end: every command failed.
#[test]
fn a_damaged_journal_is_as_good_as_lost() {
    let (fixture, [first, second]) = releases();
    for (number, operation) in [Operation::Recover, Operation::Rollback, Operation::Full].into_iter().enumerate() {
        let place = Operation::Recover.place(&fixture, &format!("server{number}"), &[first, second]);
        let area = AreaTarget::new("tree", &place.root);
        let state = state_of(&place);
        let journal = state.join("tx/journal");
        let mut bytes = std::fs::read(&journal).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&journal, &bytes).unwrap();

        // Whoever only looks leaves it where it is.
        let status = place.status();
        assert!(status.areas[0].journal_lost && status.areas[0].interrupted == Some(second));
        assert_eq!(place.history().iter().map(|record| record.number).collect::<Vec<_>>(), [1]);
        assert_eq!(journal_state(&area, &place.state).unwrap(), JournalState::Damaged);
        place.record(1);
        let planned = place.try_checkout(&second, |options| {
            (options.mode, options.dry_run) = (Some(Mode::Full), true);
        });
        assert!(planned.unwrap().areas[0].journal_lost);
        assert!(journal.exists());

        // An incremental checkout called what the switch had not come to a local change.
        for dry_run in [true, false] {
            let refused = place.try_checkout(&second, |options| {
                (options.mode, options.dry_run) = (Some(Mode::Incremental), dry_run);
            });
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("is a mixture"), "{refused}");
        }
        std::fs::write(&journal, &bytes).unwrap();
        match operation.run(&fixture.store, &place.paths(), &second) {
            Ok(()) => assert_eq!(operation, Operation::Full),
            Err(refused) => {
                let refused = refused.to_string();
                assert!(
                    refused.contains("journal.damaged now): it can be neither finished nor taken back"),
                    "{refused}"
                );
            }
        }
        assert_eq!(std::fs::read(state.join("journal.damaged")).unwrap(), bytes, "for whoever wants to look into it");
        place.checkout(&second, Mode::Full);
        place.assert_is(&second);
        assert_eq!(journal_state(&area, &place.state).unwrap(), JournalState::Fine);
        assert!(contents(&place.root.join(".evenkeel/undo")).contains(&b"one".to_vec()), "what gave way is kept");
    }
}

/// It had ended, and only its place among the records was missing: it is there then, as one that cannot be taken back.
#[test]
fn a_damaged_journal_of_what_has_ended() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    let state = state_of(&place);
    std::fs::rename(state.join("records/2"), state.join("tx")).unwrap();
    std::fs::write(state.join("tx/journal"), "damaged").unwrap();
    assert!(!place.status().areas[0].journal_lost);
    assert_eq!(place.history().len(), 1);
    let warnings = place.checkout(&second, Mode::Full).areas[0].warnings.clone();
    assert!(warnings.iter().any(|warning| warning.contains("journal.damaged now")), "{warnings:?}");
    let told: Vec<_> = place.history().iter().map(|record| (record.number, record.kept)).collect();
    assert_eq!(told, [(1, true), (2, false)]);
    place.record(2);
    place.assert_is(&second);
}
