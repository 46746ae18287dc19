//! What was seen in a place: all of it counted, the newest of each code remembered.

use std::collections::BTreeMap;

use clerk_sync_pipeline::{
    Millis,
    queue::parked::{Letter, Tally},
};

/// Letters of one code that are remembered, the newest; a page shows no more.
const MOST_OF_A_CODE: usize = 250;
/// Codes whose letters are remembered: clerk-sync has fewer, but anybody may publish there.
const MOST_CODES: usize = 40;

/// A look at a place. Of a hundred thousand letters with one code, those with another are still
/// found.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) at: Millis,
    pub(crate) tally: Tally,
    letters: BTreeMap<String, BTreeMap<Age, Letter>>,
}

/// When it was received, and where it came in the walk: letters of one moment differ.
type Age = (Option<Millis>, u64);

impl Inventory {
    pub(crate) fn new(at: Millis) -> Self {
        Self {
            at,
            tally: Tally::default(),
            letters: BTreeMap::new(),
        }
    }

    /// Counts a letter, and remembers it if it is among the newest.
    pub(crate) fn note(&mut self, letter: &Letter, place: u64) {
        self.tally.add(&letter.code);
        if !self.letters.contains_key(&letter.code) && self.letters.len() >= MOST_CODES {
            return;
        }
        let of_code = self.letters.entry(letter.code.clone()).or_default();
        let age = (letter.received_at, place);
        if of_code.len() >= MOST_OF_A_CODE {
            if of_code
                .first_key_value()
                .is_some_and(|(oldest, _)| age < *oldest)
            {
                return;
            }
            of_code.pop_first();
        }
        // No page shows what else travels with it.
        let headers = Vec::new();
        let letter = letter.clone();
        of_code.insert(age, Letter { headers, ..letter });
    }

    /// The newest letters of a code, the newest first.
    pub(crate) fn of_code(&self, code: &str) -> Vec<&Letter> {
        let of_code = self.letters.get(code);
        of_code.map_or_else(Vec::new, |letters| letters.values().rev().collect())
    }

    /// The letters of an event, as far as they are remembered.
    pub(crate) fn of_event(&self, id: &str) -> Vec<Letter> {
        let letters = self.letters.values().flat_map(BTreeMap::values);
        let found = letters.filter(|letter| letter.id.as_str() == id);
        found.cloned().collect()
    }

    /// Whether every letter is remembered.
    pub(crate) fn is_whole(&self) -> bool {
        let remembered: usize = self.letters.values().map(BTreeMap::len).sum();
        remembered as u64 == self.tally.total()
    }
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::{EventId, EventType};

    use super::*;

    fn letter(id: &str, code: &str, at: i64) -> Letter {
        Letter {
            id: EventId::parse(id).unwrap(),
            event_type: EventType::parse("user.created").unwrap(),
            code: code.to_owned(),
            detail: None,
            attempts: 1,
            first_failed_at: None,
            received_at: Some(Millis(at)),
            bytes: 1,
            headers: vec![("a".to_owned(), "b".to_owned())],
        }
    }

    #[test]
    fn a_flood_of_one_code_hides_no_other() {
        let mut seen = Inventory::new(Millis(0));
        seen.note(&letter("msg_old", "missing_email", 1), 0);
        assert!(seen.is_whole());
        for number in 1..=1000_u32 {
            let letter = letter(&format!("msg_{number}"), "malformed", number.into());
            seen.note(&letter, number.into());
        }
        assert!(!seen.is_whole());
        assert_eq!(seen.tally.total(), 1001, "all are counted");
        let old = seen.of_code("missing_email");
        assert_eq!((old.len(), old[0].id.as_str()), (1, "msg_old"));
        let flood = seen.of_code("malformed");
        assert_eq!(flood.len(), MOST_OF_A_CODE);
        assert_eq!(flood[0].id.as_str(), "msg_1000", "the newest first");
        assert_eq!(flood.last().unwrap().id.as_str(), "msg_751");
        assert_eq!(seen.of_event("msg_1000").len(), 1);
        assert!(seen.of_event("msg_1").is_empty());
        assert!(seen.of_code("nothing").is_empty());
    }

    #[test]
    fn codes_without_end_are_counted_only() {
        let mut seen = Inventory::new(Millis(0));
        for number in 0..1000_u32 {
            let code = format!("code_{number:04}");
            seen.note(&letter("msg_1", &code, 1), number.into());
        }
        assert_eq!(seen.tally.total(), 1000);
        assert_eq!(seen.letters.len(), MOST_CODES);
    }
}
