// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the form `--name value` and `--name`, checked against the names that a command knows.

use crate::Result;

/// Parsed options of one command, in the order given.
pub struct Args {
    options: Vec<(String, Option<String>)>,
}

impl Args {
    /// Parses `words`; names in `valued` take the next word (or `=value`), names in `flags` take none.
    ///
    /// # Errors
    /// An unknown name, a missing value, or a word that belongs to no option.
    pub fn parse(words: &[String], valued: &[&str], flags: &[&str]) -> Result<Args> {
        let mut options = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let value = if valued.contains(&name) {
                let value = attached.or_else(|| words.next().cloned());
                Some(value.ok_or_else(|| format!("{name} needs a value"))?)
            } else if flags.contains(&name) && attached.is_none() {
                None
            } else {
                return Err(format!("unknown option '{word}'"));
            };
            options.push((name.to_owned(), value));
        }
        Ok(Args { options })
    }

    pub fn flag(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| known == name)
    }

    /// Every value of an option that may be repeated.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.options.iter().filter(|(known, _)| known == name).filter_map(|(_, value)| value.as_deref()).collect()
    }

    /// The last value of `name` as a number.
    ///
    /// # Errors
    /// A value that is no whole number.
    pub fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.all(name).last() {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} needs a whole number, not '{text}'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Args::parse(&words, &["--only", "--pairs"], &["--list"])
    }

    #[test]
    fn values_may_be_attached_or_follow() {
        let args = parse(&["--only", "a", "--only=b", "--list"]).unwrap();
        assert_eq!(args.all("--only"), ["a", "b"]);
        assert!(args.flag("--list"));
        assert_eq!(args.number("--pairs", 5), Ok(5));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [&["--only"][..], &["--unknown"], &["word"], &["--list=yes"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["--pairs", "five"]).unwrap().number("--pairs", 5).is_err());
    }
}
