// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks one store and prints what it finds: `one-check STORE`. The process that fault tests lie to.

use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::{Progress, Store};

fn main() {
    let store = Store::open(std::env::args().nth(1).expect("usage: one-check STORE").as_ref()).unwrap();
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = check(&store, &options, &Progress::default()).unwrap();
    println!("{} snapshots", report.snapshots);
    for finding in report.findings {
        println!("{:?} {}: {}", finding.severity, finding.object, finding.problem);
    }
}
