//! Which version of a thing a caller wants to change. It is asked again by whoever writes, each time.

/// The revisions that may be written over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// One of these, and nothing that came after it.
    OneOf(Vec<i64>),
}

impl Expected {
    /// Whether what has `revision` by now is what the caller means.
    pub fn admits(&self, revision: i64) -> bool {
        match self {
            Expected::Any => true,
            Expected::OneOf(revisions) => revisions.contains(&revision),
        }
    }
}
