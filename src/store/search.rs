//! The searched text of a key, and its grams. Pure.
//!
//! Both sides of a comparison are folded here, so that every engine finds the same.

use std::collections::BTreeSet;

use crate::key::KeyRecord;

/// The characters of a gram.
pub const GRAM_LEN: usize = 3;
/// Between the name and the id. Neither a name nor a search holds one.
const SEPARATOR: char = '\n';

/// `text` in small letters, character by character: what a letter becomes does not depend on its
/// neighbours, or a part of a text would not be found in it.
pub fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// What searches for a key look at.
pub fn searched(record: &KeyRecord) -> String {
    searched_text(&record.name, record.id.as_str())
}

/// [`searched`] of a name and an id.
pub fn searched_text(name: &str, id: &str) -> String {
    format!("{}{SEPARATOR}{}", fold(name), fold(id))
}

/// The grams of a text that was folded.
pub fn grams(folded: &str) -> BTreeSet<String> {
    folded
        .split(SEPARATOR)
        .flat_map(|part| {
            let characters: Vec<char> = part.chars().collect();
            let grams: Vec<String> = characters
                .windows(GRAM_LEN)
                .map(String::from_iter)
                .collect();
            grams
        })
        .collect()
}

/// A pattern for LIKE (with `ESCAPE '!'`) that a text has which contains `folded`.
pub fn pattern(folded: &str) -> String {
    let escaped = folded
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grams_do_not_reach_from_the_name_into_the_id() {
        let text = searched_text("Ab%", "XyZ1");
        assert_eq!(text, "ab%\nxyz1");
        let found: Vec<String> = grams(&text).into_iter().collect();
        assert_eq!(found, ["ab%", "xyz", "yz1"]);
        assert!(grams(&searched_text("ab", "xy")).is_empty());
    }

    proptest! {
        /// Whatever part of a name is searched for in whatever case: the key has all its grams.
        #[test]
        fn a_part_has_no_gram_that_the_whole_has_not(name in ".{0,40}", from in 0usize..40, to in 0usize..40) {
            let part: String = name.chars().skip(from).take(to).collect();
            let upper: String = part.chars().flat_map(char::to_uppercase).collect();
            let whole = searched_text(&name.replace('\n', " "), "4fzN8cQ2pLrT");
            let part = fold(&part.replace('\n', " "));
            prop_assert!(grams(&part).is_subset(&grams(&whole)));
            prop_assert!(whole.contains(&part));
            prop_assert!(fold(&fold(&upper)) == fold(&upper));
        }
    }
}
