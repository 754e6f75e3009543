//! What the readers of JSON and MessagePack say about a fault, in words for people who know neither them nor this
//! program. Pure; called where a peer is told what is wrong with what it sent.

/// What a reader says, and what is said instead of the whole.
const WHOLE: &[(&str, &str)] = &[
    ("wrong msgpack marker", "a value is of the wrong kind"),
    ("IO error while reading", "the bytes end before the value does"),
    ("depth limit exceeded", "values nest too deep"),
];
/// The readers' words for kinds of values, and ours.
const WORDS: &[(&str, &str)] = &[
    ("unknown variant", "unknown word"),
    ("expected variant index", "expected one of the known words, not their number:"),
    ("expected u64", "expected a number from 0"),
    ("expected u32", "expected a number from 0"),
    ("expected i64", "expected a whole number"),
    ("expected a sequence", "expected a list"),
    ("expected a tuple of size 2", "expected a list of two"),
    ("invalid type: sequence", "invalid type: list"),
    ("expected struct", "expected a map:"),
];

/// The message in plain words.
#[must_use]
pub fn plain(message: &str) -> String {
    if let Some((_, instead)) = WHOLE.iter().find(|(said, _)| message.starts_with(said)) {
        return (*instead).to_owned();
    }
    WORDS.iter().fold(message.to_owned(), |message, (said, instead)| message.replace(said, instead))
}
