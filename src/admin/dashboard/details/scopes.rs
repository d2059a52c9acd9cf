//! What a key's grants come to, as the catalogue describes it.

use crate::admin::access::Permission;
use crate::config::settings::DescribedScope;
use crate::key::ScopePattern;

/// A scope, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct ScopeFact {
    pub name: String,
    pub description: String,
}

/// One grant of a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    pub name: String,
    /// Of a plain scope.
    pub description: String,
    /// What a wildcard covers now.
    pub covered: Vec<ScopeFact>,
    /// Whether there is nothing any more that it would grant.
    pub is_idle: bool,
}

/// `grants` as they are described.
pub fn grants(grants: &[ScopePattern], catalogue: &[DescribedScope]) -> Vec<Grant> {
    grants
        .iter()
        .map(|grant| described(grant, catalogue))
        .collect()
}

fn described(grant: &ScopePattern, catalogue: &[DescribedScope]) -> Grant {
    let known = catalogue
        .iter()
        .map(|entry| (entry.scope.as_str(), &*entry.description));
    let own = Permission::ALL.map(|permission| (permission.as_str(), permission.purpose()));
    let covered = known.chain(own).filter(|(name, _)| grant.covers(name));
    let fact = |(name, description): (&str, &str)| ScopeFact {
        name: name.to_owned(),
        description: description.to_owned(),
    };
    let mut covered: Vec<ScopeFact> = covered.map(fact).collect();
    let is_idle = covered.is_empty();
    let is_plain = covered.len() == 1 && covered.iter().all(|fact| fact.name == grant.as_str());
    let description = match covered.pop_if(|_| is_plain) {
        Some(fact) => fact.description,
        None => String::new(),
    };
    Grant {
        name: grant.to_string(),
        description,
        covered,
        is_idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<DescribedScope> {
        let entry = |name: &str, description: &str| DescribedScope {
            scope: name.parse().unwrap(),
            description: description.to_owned(),
        };
        vec![
            entry("orders:read", "See orders"),
            entry("orders:write", "Change orders"),
            entry("bills:read", ""),
        ]
    }

    fn grant(text: &str) -> Grant {
        described(&text.parse().unwrap(), &catalogue())
    }

    #[test]
    fn grants_are_described() {
        let plain = grant("orders:write");
        assert_eq!(plain.description, "Change orders");
        assert_eq!((plain.covered.len(), plain.is_idle), (0, false));
        let names = |grant: &Grant| -> Vec<String> {
            grant.covered.iter().map(|fact| fact.name.clone()).collect()
        };
        let wildcard = grant("orders:*");
        assert_eq!(wildcard.description, "");
        assert_eq!(names(&wildcard), ["orders:read", "orders:write"]);
        assert_eq!(names(&grant("bills:*")), ["bills:read"]);
        assert_eq!(grant("*").covered.len(), 3);
        assert_eq!(grant("sidekey:*").covered.len(), Permission::ALL.len());
        let own = grant("sidekey:usage:read");
        assert!(own.description.starts_with("See what"));
        assert!(grant("gone:read").is_idle);
    }
}
