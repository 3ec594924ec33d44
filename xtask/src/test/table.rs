// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table at the end of `cargo xtask test`. Pure: rows in, text out.

use std::fmt;

use super::Outcome;

/// One line of the table.
pub struct Row {
    name: String,
    outcome: Outcome,
    seconds: Option<f64>,
}

impl Row {
    pub fn new(name: String, outcome: Outcome, seconds: Option<f64>) -> Row {
        Row { name, outcome, seconds }
    }

    fn cells(&self) -> [String; 4] {
        let (result, note) = match &self.outcome {
            Outcome::Passed(note) => ("passed", note),
            Outcome::Failed(note) => ("FAILED", note),
            Outcome::LeftOut(note) => ("left out", note),
        };
        let seconds = self.seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default();
        // A message of several lines would break the table; the whole of it is above, in the group's output.
        let note = note.lines().next().unwrap_or_default();
        [self.name.clone(), result.to_owned(), seconds, note.to_owned()]
    }
}

/// The rows as a Markdown table that also reads well in a terminal.
pub fn render(rows: &[Row]) -> String {
    let head = ["group", "result", "seconds", "reason"].map(str::to_owned);
    let cells: Vec<[String; 4]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for (index, [name, result, seconds, note]) in cells.iter().enumerate() {
        let [a, b, c] = widths;
        text.push_str(format!("| {name:a$} | {result:b$} | {seconds:>c$} | {note}").trim_end());
        text.push('\n');
        if index == 0 {
            text.push_str(&format!("|{}|{}|{}:|---\n", "-".repeat(a + 2), "-".repeat(b + 2), "-".repeat(c + 1)));
        }
    }
    text
}

/// The last line: what scripts read.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    passed: usize,
    pub failed: usize,
    left_out: usize,
}

impl Summary {
    /// Counts the rows; where everything must run (`strict`), what was left out has failed.
    pub fn of(rows: &[Row], strict: bool) -> Summary {
        let mut summary = Summary { passed: 0, failed: 0, left_out: 0 };
        for row in rows {
            match row.outcome {
                Outcome::Passed(_) => summary.passed += 1,
                Outcome::Failed(_) => summary.failed += 1,
                Outcome::LeftOut(_) if strict => summary.failed += 1,
                Outcome::LeftOut(_) => summary.left_out += 1,
            }
        }
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} left out", self.passed, self.failed, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_left_out_fails_only_where_everything_must_run() {
        let rows = [
            Row::new("a".into(), Outcome::Passed("3 tests".into()), Some(1.25)),
            Row::new("fuzz".into(), Outcome::LeftOut("no nightly".into()), Some(0.0)),
        ];
        assert_eq!(Summary::of(&rows, false), Summary { passed: 1, failed: 0, left_out: 1 });
        assert_eq!(Summary::of(&rows, true), Summary { passed: 1, failed: 1, left_out: 0 });
        let table = render(&rows);
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("| a     | passed   |     1.2 | 3 tests\n"), "{table}");
    }
}
