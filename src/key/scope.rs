//! Scopes: what a key may do.
//!
//! A [`Scope`] is one permission (`orders:write`); a [`ScopePattern`] is what a key is granted: a
//! scope, or a wildcard over everything below a name (`orders:*`) or over all (`*`). The names
//! `sidekey:...` are Sidekey's own: only a pattern that itself starts with `sidekey:` covers them,
//! so `*` never makes an admin key.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

/// A scope has at most this many characters (RFC 6749 sets no limit; header fields do).
pub const SCOPE_LEN_MAX: usize = 100;
/// The catalogue has at most this many scopes.
pub const CATALOGUE_LEN_MAX: usize = 1024;
/// Scopes that start with this are Sidekey's own.
pub const OWN_NAMESPACE: &str = "sidekey:";

/// One permission: segments of `[A-Za-z0-9._-]`, joined by `:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(String);

/// What a key is granted: a scope, or a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopePattern(String);

/// A text that is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {SCOPE_LEN_MAX} characters: letters, digits, '.', '_' and '-', in parts joined by ':', such as \"orders:write\""
)]
pub struct ScopeError;

/// A text that is neither a scope nor a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a scope such as \"orders:write\", or a wildcard such as \"orders:*\" or \"*\"")]
pub struct ScopePatternError;

fn is_scope(text: &str) -> bool {
    text.len() <= SCOPE_LEN_MAX
        && text.split(':').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        })
}

impl Scope {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if is_scope(text) {
            Ok(Scope(text.to_owned()))
        } else {
            Err(ScopeError)
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ScopePattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a key with this grant holds `scope`.
    pub fn covers(&self, scope: &str) -> bool {
        if self.is_own() != scope.starts_with(OWN_NAMESPACE) {
            return false;
        }
        match self.0.strip_suffix('*') {
            // `orders:*` leaves `orders:`, `*` leaves nothing.
            Some(stem) => scope.len() > stem.len() && scope.starts_with(stem),
            None => self.0 == scope,
        }
    }

    /// Whether this is one of Sidekey's own scopes.
    pub fn is_own(&self) -> bool {
        self.0.starts_with(OWN_NAMESPACE)
    }
}

impl FromStr for ScopePattern {
    type Err = ScopePatternError;

    fn from_str(text: &str) -> Result<Self, ScopePatternError> {
        let stem = match text.strip_suffix('*') {
            None => Some(text),
            Some("") => None,
            Some(stem) => Some(stem.strip_suffix(':').ok_or(ScopePatternError)?),
        };
        if stem.is_none_or(is_scope) {
            Ok(ScopePattern(text.to_owned()))
        } else {
            Err(ScopePatternError)
        }
    }
}

impl fmt::Display for ScopePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes of one catalogue: one bit for each of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeSet(SmallVec<[u64; 2]>);

impl ScopeSet {
    fn insert(&mut self, index: usize) {
        let word = index / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    /// Whether every scope of `required` is in this set.
    pub fn contains_all(&self, required: &ScopeSet) -> bool {
        required.0.iter().enumerate().all(|(at, word)| {
            let held = self.0.get(at).copied().unwrap_or(0);
            held & word == *word
        })
    }
}

/// The scopes that a deployment knows, in a fixed order.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(Vec<Scope>);

impl Catalogue {
    /// `scopes` in the order of the configuration, without repetitions.
    pub fn new(scopes: Vec<Scope>) -> Self {
        Catalogue(scopes)
    }

    /// The scopes in order.
    pub fn scopes(&self) -> &[Scope] {
        &self.0
    }

    /// The set of exactly `scopes`; the first one that the catalogue doesn't know is the error.
    pub fn require<'a>(&self, scopes: &'a [Scope]) -> Result<ScopeSet, &'a Scope> {
        let mut set = ScopeSet::default();
        for scope in scopes {
            set.insert(
                self.0
                    .iter()
                    .position(|known| known == scope)
                    .ok_or(scope)?,
            );
        }
        Ok(set)
    }

    /// The set of everything that `grants` cover. What is no longer in the catalogue grants nothing.
    pub fn granted(&self, grants: &[ScopePattern]) -> ScopeSet {
        let mut set = ScopeSet::default();
        for (index, scope) in self.0.iter().enumerate() {
            if grants.iter().any(|grant| grant.covers(scope.as_str())) {
                set.insert(index);
            }
        }
        set
    }

    /// Whether `grant` covers anything in the catalogue, so that it can be given to a key.
    pub fn can_grant(&self, grant: &ScopePattern) -> bool {
        grant.as_str() == "*" || self.0.iter().any(|scope| grant.covers(scope.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> ScopePattern {
        text.parse().unwrap()
    }

    fn catalogue(names: &[&str]) -> Catalogue {
        Catalogue::new(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[test]
    fn what_a_grant_covers() {
        for (grant, scope, covered) in [
            ("orders:write", "orders:write", true),
            ("orders:write", "orders:writer", false),
            ("orders:write", "orders", false),
            ("orders:*", "orders:write", true),
            ("orders:*", "orders:items:read", true),
            ("orders:*", "orders", false),
            ("orders:*", "ordersx:write", false),
            ("*", "orders:write", true),
            ("*", "sidekey:admin", false),
            ("sidekey:*", "sidekey:admin", true),
            ("sidekey:keys:*", "sidekey:keys:read", true),
            ("sidekey:keys:*", "sidekey:admin", false),
        ] {
            assert_eq!(pattern(grant).covers(scope), covered, "{grant} {scope}");
        }
    }

    #[test]
    fn what_is_a_scope() {
        for text in ["a", "orders:write", "a.b-c_d:E:9"] {
            assert!(text.parse::<Scope>().is_ok(), "{text}");
        }
        for text in [
            "", ":", "a:", ":a", "a::b", "a b", "a*", "orders:*", "ü", "a\"b", "a,b",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
        for text in ["*", "a:*", "a:b:*"] {
            assert!(text.parse::<ScopePattern>().is_ok(), "{text}");
        }
        for text in ["**", "a*", "*:a", "a:*:b", ":*", "a:b*"] {
            assert!(text.parse::<ScopePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn sets_compare_over_more_than_one_word() {
        let names: Vec<String> = (0..200).map(|n| format!("s:{n}")).collect();
        let known = catalogue(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let all = known.granted(&[pattern("s:*")]);
        let few = known.granted(&[pattern("s:3"), pattern("s:150")]);
        let required = known.require(&["s:150".parse().unwrap()]).unwrap();
        assert!(all.contains_all(&few));
        assert!(!few.contains_all(&all));
        assert!(few.contains_all(&required));
        assert!(few.contains_all(&ScopeSet::default()));
        assert!(!ScopeSet::default().contains_all(&required));
    }

    #[test]
    fn the_catalogue_names_what_it_does_not_know() {
        let known = catalogue(&["a:read", "a:write"]);
        let unknown: Scope = "b:read".parse().unwrap();
        assert_eq!(known.require(std::slice::from_ref(&unknown)), Err(&unknown));
        assert!(known.can_grant(&pattern("a:*")));
        assert!(known.can_grant(&pattern("*")));
        assert!(!known.can_grant(&pattern("b:*")));
        assert!(!known.can_grant(&pattern("sidekey:admin")));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = text.parse::<Scope>();
            let _ = text.parse::<ScopePattern>();
        }

        #[test]
        fn a_granted_set_agrees_with_the_patterns(
            names in proptest::collection::btree_set("[ab]{1,2}(:[ab]{1,2}){0,2}", 1..80),
            grants in proptest::collection::vec("([ab]{1,2}:){0,2}([ab]{1,2}|\\*)", 0..4),
        ) {
            let scopes: Vec<Scope> = names.iter().map(|name| name.parse().unwrap()).collect();
            let grants: Vec<ScopePattern> = grants.iter().map(|grant| grant.parse().unwrap()).collect();
            let known = Catalogue::new(scopes.clone());
            let set = known.granted(&grants);
            for scope in &scopes {
                let held = grants.iter().any(|grant| grant.covers(scope.as_str()));
                let required = known.require(std::slice::from_ref(scope)).unwrap();
                prop_assert_eq!(set.contains_all(&required), held);
            }
        }
    }
}
