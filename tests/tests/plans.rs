// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plans that are saved, approved, and carried out if they still fit.

use std::sync::Arc;

use evenkeel_store::checkout::{CheckoutReport, Mode, SavedPlan};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Error, Result};
use evenkeel_tests::fixture::settle;
use evenkeel_tests::place::{Place, summary};
use evenkeel_tests::{Fixture, Tree, read_tree};

/// Two releases that differ in every way.
fn two_releases(fixture: &Fixture) -> [SnapshotId; 2] {
    fixture.tree.file("same", "1").file("f", "one").file("gone/x", "x").file("d/y", "y").symlink("l", "f");
    let first = fixture.commit_new();
    fixture.tree.file("f", "two!").remove("gone").file("new", "n").mode("d", 0o700).remove("l").file("l", "a file");
    [first, fixture.commit_new()]
}

fn plan(place: &Place<'_>, id: &SnapshotId, mode: Mode) -> SavedPlan {
    let report =
        place.try_checkout(id, |options| (options.save_plan, options.dry_run, options.mode) = (true, true, Some(mode)));
    report.unwrap().plan.unwrap()
}

fn carry_out(place: &Place<'_>, id: &SnapshotId, plan: &SavedPlan) -> Result<CheckoutReport> {
    place.try_checkout(id, |options| {
        (options.mode, options.approved) = (plan.mode(), Some(Arc::new(plan.clone())));
    })
}

#[test]
fn a_plan_that_fits_is_carried_out() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("stray", "s").file("same", "2");
    settle();
    let saved = plan(&place, &second, Mode::Full);
    assert_eq!(saved, plan(&place, &second, Mode::Full), "the same state gives the same plan, to the byte");
    assert_eq!(saved.snapshot(), Some(second));
    // It is a document: what comes from a file is what was saved.
    let file = fixture.dir().join("plan");
    std::fs::write(&file, saved.bytes()).unwrap();
    assert_eq!(SavedPlan::load(&file).unwrap(), saved);
    let report = carry_out(&place, &second, &saved).unwrap();
    assert_eq!(report.areas[0].counts.strays_removed, 1);
    place.assert_is(&second);
    let again = carry_out(&place, &second, &saved).unwrap_err().to_string();
    let at = format!("area `tree` is at {} now, and was at {}", second.short(12), first.short(12));
    assert!(again.contains(&at), "{again}");
}

/// Whatever happened to what a plan changes, it is found; nothing is done then.
#[test]
fn a_plan_that_does_not_fit_changes_nothing() {
    type Disturb = fn(&Tree);
    let cases: [(Disturb, Mode, &str); 9] = [
        (|tree| _ = tree.file("f", "edit"), Mode::Full, "tree:f changed since"),
        (|tree| _ = tree.mode("f", 0o600), Mode::Full, "tree:f changed since"),
        (|tree| _ = tree.remove("f").file("f", "one"), Mode::Full, "tree:f changed since"),
        (|tree| _ = tree.remove("f"), Mode::Full, "tree:f changed since"),
        (|tree| _ = tree.file("stray", "s"), Mode::Full, "tree:stray would be changed as well"),
        (|tree| _ = tree.file("gone/more", "s"), Mode::Full, "tree:gone/more would be changed as well"),
        (|tree| _ = tree.remove("gone/x"), Mode::Full, "tree:gone/x needs no change now"),
        (|tree| _ = tree.file("new", "mine"), Mode::Incremental, "tree:new changed since"),
        (|tree| _ = tree.remove("same"), Mode::Incremental, "tree:same would be changed as well"),
    ];
    for (disturb, mode, expected) in cases {
        let fixture = Fixture::new();
        let [first, second] = two_releases(&fixture);
        let place = Place::new(&fixture, "server");
        place.checkout_exactly(&first);
        let saved = plan(&place, &second, mode);
        settle();
        disturb(&place.tree());
        let before = read_tree(&place.root);
        let error = carry_out(&place, &second, &saved).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().ends_with(expected), "{error}");
        assert_eq!(read_tree(&place.root), before, "{expected}");
        assert_eq!(place.history().len(), 1);
    }
}

/// What an incremental checkout leaves alone may come and go: nothing was approved about it.
#[test]
fn what_is_left_alone_anyway_does_not_matter() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let saved = plan(&place, &second, Mode::Incremental);
    place.tree().file("stray", "s").file("d/stray", "s").file("same", "edited");
    settle();
    let report = carry_out(&place, &second, &saved).unwrap();
    assert!(summary(&report).contains(&"keep same".into()), "{:?}", summary(&report));
    assert_eq!(place.drift(), ["d/stray: stray", "same: content", "stray: stray"]);
}

/// The bounds hold for a plan as well, and are said when it is made.
#[test]
fn a_plan_is_no_way_around_a_ceiling() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    for number in 0..30 {
        place.tree().file(format!("stray{number}"), "s");
    }
    settle();
    let made = place.try_checkout(&second, |options| {
        (options.save_plan, options.dry_run, options.mode) = (true, true, Some(Mode::Full));
    });
    let made = made.unwrap();
    let why = made.areas[0].would_refuse.clone().unwrap();
    assert!(why.contains("30 paths that were never delivered"), "{why}");
    let saved = made.plan.unwrap();
    assert_eq!(carry_out(&place, &second, &saved).unwrap_err().to_string(), why);
}

#[test]
fn what_is_no_plan_is_refused_by_name() {
    let fixture = Fixture::new();
    let [first, _] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    let saved = plan(&place, &first, Mode::Full);
    let text = String::from_utf8(saved.bytes().to_vec()).unwrap();
    let file = fixture.dir().join("plan");
    let cut = text.rfind("{\"end\"").unwrap();
    for (bad, expected) in [
        (String::new(), "is no saved plan"),
        ("{\"schema\":\"evenkeel/log/1\"}\n".into(), "is no saved plan"),
        (text.replacen("plan/1", "plan/2", 1), "was saved by a newer version"),
        (text[..cut].into(), "is cut off"),
        (text[..cut / 2].into(), "is cut off"),
        (text.trim_end().into(), "is cut off"),
        (text.replacen("\"add\"", "\"adx\"", 1), "was changed after it was saved"),
        (text.replacen("\"areas\"", "\"arenas\"", 1), "is damaged"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let error = SavedPlan::load(&file).unwrap_err();
        assert_eq!(error.to_string(), format!("{} {expected}", file.display()));
    }
}

/// A path of any bytes, in the order of the tree and not of its spelling.
#[test]
fn strange_names_fit_too() {
    let fixture = Fixture::new();
    let strange = &b"a\xff\n"[..];
    fixture.tree.file("a/b", "1").file("a!", "2").file(strange, "3");
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    let saved = plan(&place, &id, Mode::Full);
    assert!(String::from_utf8_lossy(saved.bytes()).contains("\"path_bytes\":\"61ff0a\""));
    carry_out(&place, &id, &saved).unwrap();
    place.assert_is(&id);
    place.tree().file("a!", "x").file(strange, "y").file("a/b", "z");
    let saved = plan(&place, &id, Mode::Full);
    carry_out(&place, &id, &saved).unwrap();
    place.assert_is(&id);
}
