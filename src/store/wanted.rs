//! Usage of several subjects in one statement, from a table of their names.

/// No subject is called so: its rows are those of nobody.
const NOBODY: &str = "";

/// So many subjects are asked for where `count` are wanted, so that there are few different statements.
fn asked_for(count: usize) -> usize {
    if count == 0 {
        0
    } else {
        count.next_power_of_two()
    }
}

/// `names`, and nobody's.
pub(super) fn padded(mut names: Vec<String>) -> Vec<String> {
    names.resize(asked_for(names.len()), NOBODY.to_owned());
    names
}

/// What a statement about at least `count` subjects begins with: the table `wanted`. Their places come
/// after those of the two moments.
pub(super) fn table(count: usize) -> String {
    let places = 3..3 + asked_for(count);
    let places: Vec<String> = places.map(|place| format!("(${place})")).collect();
    format!("WITH wanted (subject) AS (VALUES {})", places.join(", "))
}
