//! How hard a text is to guess, roughly: for telling a random key from something that a person made up.
//!
//! Somebody who knows how such texts are made would try them step by step: a character costs what its
//! kind has to choose from; what goes on as before (a repetition, a sequence, a word, a separator that
//! was there already) costs little. The estimate is the cheapest way through the text. It errs towards
//! less: a random text is charged a tenth to a fifth too little.

use std::ops::RangeInclusive;

/// An imported key that is easier to guess than this many random bits is refused, unless that is asked
/// for. A minted key has 256.
pub const ENTROPY_BITS_MIN: u32 = 64;

/// What a step costs that goes on as before.
const CONTINUED_BITS: f64 = 4.0;
/// What a change from one kind of character to another costs.
const SWITCH_BITS: f64 = 1.0;
/// What a separator costs that stood there before.
const SEPARATOR_BITS: f64 = 1.0;
/// What a letter of a run of small letters costs that may be a word.
const WORD_LETTER_BITS: f64 = 2.5;
/// From this many characters on something goes on as before.
const RUN_LEN_MIN: usize = 3;

/// What people put into keys that they make up.
const WORDS: [&str; 40] = [
    "access",
    "admin",
    "api",
    "asdf",
    "auth",
    "change",
    "client",
    "customer",
    "demo",
    "dev",
    "example",
    "hello",
    "internal",
    "key",
    "letmein",
    "live",
    "login",
    "master",
    "partner",
    "pass",
    "password",
    "please",
    "private",
    "prod",
    "production",
    "public",
    "qwerty",
    "root",
    "secret",
    "server",
    "service",
    "staging",
    "super",
    "test",
    "token",
    "user",
    "welcome",
    "word",
    "world",
    "zxcv",
];

/// The kinds of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Digit,
    Small,
    Capital,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            b'0'..=b'9' => Kind::Digit,
            b'a'..=b'z' => Kind::Small,
            b'A'..=b'Z' => Kind::Capital,
            _ => Kind::Other,
        }
    }

    /// Bits of one character out of all of its kind.
    fn bits(self) -> f64 {
        match self {
            Kind::Digit => 10_f64.log2(),
            Kind::Small | Kind::Capital => 26_f64.log2(),
            Kind::Other => 33_f64.log2(),
        }
    }
}

/// How many random bits `text` is worth, at most.
pub fn estimate_bits(text: &str) -> u32 {
    let (bytes, small) = (text.as_bytes(), text.to_ascii_lowercase());
    let mut cheapest = vec![f64::INFINITY; bytes.len() + 1];
    cheapest[0] = 0.0;
    for at in 0..bytes.len() {
        let kind = Kind::of(bytes[at]);
        let is_switch = at > 0 && Kind::of(bytes[at - 1]) != kind;
        let here = cheapest[at] + if is_switch { SWITCH_BITS } else { 0.0 };
        let mut reach = |lens: RangeInclusive<usize>, cost: f64| {
            for bits in &mut cheapest[at + lens.start()..=at + lens.end()] {
                *bits = bits.min(here + cost);
            }
        };
        reach(1..=1, character(bytes, at, kind));
        let continued = repeated(small.as_bytes(), at).max(word(small.as_bytes(), at));
        if continued >= RUN_LEN_MIN {
            reach(RUN_LEN_MIN..=continued, CONTINUED_BITS);
        }
        let sequence = sequence(bytes, at);
        if sequence >= RUN_LEN_MIN {
            reach(RUN_LEN_MIN..=sequence, CONTINUED_BITS + kind.bits());
        }
    }
    // Never negative, and at most some thousands.
    cheapest[bytes.len()] as u32
}

/// What the one character at `at` costs.
fn character(bytes: &[u8], at: usize, kind: Kind) -> f64 {
    if kind == Kind::Other && bytes[..at].contains(&bytes[at]) {
        SEPARATOR_BITS
    } else if small_letters(bytes, at) >= RUN_LEN_MIN {
        WORD_LETTER_BITS
    } else {
        kind.bits()
    }
}

/// How many characters from `at` on stood there before, in small letters.
fn repeated(small: &[u8], at: usize) -> usize {
    let common = |start: usize| {
        let pairs = small[start..].iter().zip(&small[at..]);
        pairs.take_while(|(old, new)| old == new).count()
    };
    (0..at).map(common).max().unwrap_or(0)
}

/// The length of the known word at `at`.
fn word(small: &[u8], at: usize) -> usize {
    let words = WORDS.iter().map(|word| word.as_bytes());
    let found = words.filter(|word| small[at..].starts_with(word));
    found.map(<[u8]>::len).max().unwrap_or(0)
}

/// The length of the sequence at `at`, up or down: `abc`, `321`.
fn sequence(bytes: &[u8], at: usize) -> usize {
    let goes_on = |step: i16| {
        let pairs = bytes[at..].windows(2);
        let count = pairs
            .take_while(|pair| i16::from(pair[1]) - i16::from(pair[0]) == step)
            .count();
        count + 1
    };
    goes_on(1).max(goes_on(-1))
}

/// The length of the run of small letters around `at`, where it may be a word: it has a vowel.
fn small_letters(bytes: &[u8], at: usize) -> usize {
    let is_small = |byte: &&u8| byte.is_ascii_lowercase();
    let ahead = bytes[at..].iter().take_while(is_small).count();
    if ahead == 0 {
        return 0;
    }
    let behind = bytes[..at].iter().rev().take_while(is_small).count();
    let run = &bytes[at - behind..at + ahead];
    let has_vowel = run.iter().any(|byte| b"aeiouy".contains(byte));
    if has_vowel { run.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_make_up_is_weak() {
        for text in [
            "",
            "password",
            "changeme",
            "12345678",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "abcabcabcabcabcabcabcabcabcabcabc",
            "0000-0000-0000-0000-0000-0000-0000",
            "my-secret-api-key-2024",
            "SuperSecretPassword123!",
            "partner-test-token-0001",
            "acme.production.service.key",
            "qwertyuiopasdfghjklzxcvbnm",
            "S3cret!Pw",
        ] {
            let bits = estimate_bits(text);
            assert!(bits < ENTROPY_BITS_MIN, "{text}: {bits}");
        }
    }

    #[test]
    fn a_sequence_over_the_seam_does_not_make_it_dear() {
        let (once, twice) = (estimate_bits("$%&!!!&%"), estimate_bits("$%&!!!&%$%&!!!&%"));
        assert!(twice <= once + 5, "{once} {twice}");
    }

    #[test]
    fn what_a_machine_makes_is_strong() {
        for text in [
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            "9b74c9897bac770ffc029102a200c5de",
            "AIzaSyD4iE2xQw9kLmN0pRtUvXyZ1a3B5c7D9e",
            "kq83nd02mxp5w7vz1rt6",
            "zKx9-Qw2e_Rt7y.Ui4o",
            "c2VjcmV0IGJ5dGVzIGFyZSBoZXJl",
        ] {
            let bits = estimate_bits(text);
            assert!(bits >= ENTROPY_BITS_MIN, "{text}: {bits}");
        }
    }

    proptest! {
        #[test]
        fn random_keys_are_strong(base62 in "[0-9A-Za-z]{22}", hex in "[0-9a-f]{32}") {
            prop_assert!(estimate_bits(&base62) >= ENTROPY_BITS_MIN, "{}", base62);
            prop_assert!(estimate_bits(&hex) >= ENTROPY_BITS_MIN, "{}", hex);
        }

        #[test]
        fn a_text_is_not_worth_more_than_its_characters(text in "[!-~]{0,64}") {
            let most = text.len() as f64 * (95_f64.log2() + SWITCH_BITS);
            prop_assert!(f64::from(estimate_bits(&text)) <= most);
        }

        #[test]
        fn twice_the_same_is_hardly_worth_more(text in "[!-~]{8,64}") {
            let (once, twice) = (estimate_bits(&text), estimate_bits(&format!("{text}{text}")));
            let most = f64::from(once + 1) + SWITCH_BITS + CONTINUED_BITS;
            prop_assert!(f64::from(twice) <= most, "{} {}", once, twice);
        }
    }
}
