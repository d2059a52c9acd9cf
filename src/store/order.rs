//! In which order a list of keys is, and places in it. Pure.

use crate::clock::Timestamp;
use crate::key::KeyId;

/// By what a list is ordered. Keys of the same value are ordered by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SortBy {
    Created,
    /// Names in small letters, by their bytes.
    Name,
    /// The latest use of any secret. Keys that were never used come last.
    LastUsed,
    /// Keys that never expire come last.
    Expires,
    /// Keys that are not to be rotated come last: those that are revoked.
    RotationDue,
}

/// An order of keys. Those that have no value come last in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyOrder {
    pub by: SortBy,
    pub is_descending: bool,
}

impl KeyOrder {
    pub const NEWEST_FIRST: KeyOrder = KeyOrder::descending(SortBy::Created);

    pub const ALL: [KeyOrder; 10] = [
        KeyOrder::ascending(SortBy::Created),
        KeyOrder::descending(SortBy::Created),
        KeyOrder::ascending(SortBy::Name),
        KeyOrder::descending(SortBy::Name),
        KeyOrder::ascending(SortBy::LastUsed),
        KeyOrder::descending(SortBy::LastUsed),
        KeyOrder::ascending(SortBy::Expires),
        KeyOrder::descending(SortBy::Expires),
        KeyOrder::ascending(SortBy::RotationDue),
        KeyOrder::descending(SortBy::RotationDue),
    ];

    pub const fn ascending(by: SortBy) -> Self {
        KeyOrder {
            by,
            is_descending: false,
        }
    }

    pub const fn descending(by: SortBy) -> Self {
        KeyOrder {
            by,
            is_descending: true,
        }
    }

    /// The name in queries: that of a key's field, with `-` before it where the greatest comes first.
    pub fn as_str(self) -> &'static str {
        match (self.by, self.is_descending) {
            (SortBy::Created, false) => "created_at",
            (SortBy::Created, true) => "-created_at",
            (SortBy::Name, false) => "name",
            (SortBy::Name, true) => "-name",
            (SortBy::LastUsed, false) => "last_used_at",
            (SortBy::LastUsed, true) => "-last_used_at",
            (SortBy::Expires, false) => "expires_at",
            (SortBy::Expires, true) => "-expires_at",
            (SortBy::RotationDue, false) => "rotation_due_at",
            (SortBy::RotationDue, true) => "-rotation_due_at",
        }
    }

    /// The order of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.as_str() == name)
    }
}

impl Default for KeyOrder {
    fn default() -> Self {
        Self::NEWEST_FIRST
    }
}

/// What a list is ordered by, of one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(i64),
    Text(String),
    /// Last, whatever the direction.
    Nothing,
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        Value::Number(moment.as_millis())
    }
}

/// A place between two keys of a list: beside one that has, or had, this value and this id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub value: Value,
    pub id: KeyId,
    /// Behind that key, in the order of the list, and not before it.
    pub is_behind: bool,
}

impl Position {
    /// Behind the key of that value and id.
    pub fn behind(value: impl Into<Value>, id: KeyId) -> Self {
        Position {
            value: value.into(),
            id,
            is_behind: true,
        }
    }

    /// Before the key of that value and id.
    pub fn before(value: impl Into<Value>, id: KeyId) -> Self {
        Position {
            is_behind: false,
            ..Self::behind(value, id)
        }
    }
}

/// Which part of a list a page has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PageFrom {
    /// Its beginning.
    #[default]
    Start,
    /// What comes behind that place.
    After(Position),
    /// What ends at that place.
    Before(Position),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_orders() {
        for order in KeyOrder::ALL {
            assert_eq!(KeyOrder::from_name(order.as_str()), Some(order));
        }
        assert_eq!(KeyOrder::default().as_str(), "-created_at");
        for other in ["", "-", "id", "+name", "Name", "--name"] {
            assert_eq!(KeyOrder::from_name(other), None, "{other}");
        }
    }
}
