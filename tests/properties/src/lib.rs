//! What must hold for any input at the five places where bytes of others are read.
//!
//! Each function takes an input, runs the product on it and panics when a property is broken.
//! `fuzz/` calls them with inputs that libFuzzer makes up (docs/FUZZING.md); `cargo test` calls
//! them with every input that is kept in `fuzz/corpus` and `fuzz/regressions`.

mod envelope;
mod message;
mod payload;
mod request;
mod token;

pub use envelope::envelope;
pub use message::message;
pub use payload::payload;
pub use request::request;
pub use token::token;

/// A property: panics when it does not hold for the input.
pub type Property = fn(&[u8]);

/// Every property, by the name of its fuzz target.
pub const ALL: [(&str, Property); 5] = [
    ("envelope", envelope),
    ("message", message),
    ("payload", payload),
    ("request", request),
    ("token", token),
];
