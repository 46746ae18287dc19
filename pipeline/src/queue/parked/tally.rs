//! Letters counted by code.

use std::{collections::BTreeMap, fmt};

use crate::wording::number;

/// Counts by code.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// One more.
    pub fn add(&mut self, code: &str) {
        match self.0.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(code.to_owned(), 1);
            }
        }
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Codes with their counts, the most frequent first.
    #[must_use]
    pub fn codes(&self) -> Vec<(&str, u64)> {
        let mut codes: Vec<_> = self
            .0
            .iter()
            .map(|(code, count)| (code.as_str(), *count))
            .collect();
        // Stable: codes as frequent as each other stay in the order of their names.
        codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        codes
    }
}

impl fmt::Display for Tally {
    /// A line for each code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.values().map(|count| number(*count).len()).max();
        for (place, (code, count)) in self.codes().into_iter().enumerate() {
            let newline = if place == 0 { "" } else { "\n" };
            let width = width.unwrap_or_default();
            write!(f, "{newline}  {:>width$}  {code}", number(count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "");
        for code in ["b", "c", "a", "c"] {
            tally.add(code);
        }
        assert_eq!(tally.codes(), [("c", 2), ("a", 1), ("b", 1)]);
        assert_eq!(tally.to_string(), "  2  c\n  1  a\n  1  b");
        assert_eq!(tally.total(), 4);
    }
}
