//! A rate-limit policy: how many tokens a bucket holds, and how fast it fills.

use serde::{Deserialize, Serialize};

/// A policy's name has at most this many characters.
pub const POLICY_NAME_LEN_MAX: usize = 64;
/// The most tokens that a policy may give per window, or hold.
pub const TOKENS_MAX: u64 = 1_000_000_000;
/// The longest window: 366 days.
pub const WINDOW_SECONDS_MAX: u64 = 366 * 86_400;
/// `burst x window_seconds` stays below this, so that every bucket's arithmetic is exact in the
/// 53 bits that a Lua number has (at a resolution of one millisecond).
pub const BURST_WINDOW_MAX: u64 = (1 << 53) / 1000;
/// The most policies that one request is held to by its key.
pub const POLICIES_MAX: usize = 8;

/// A bucket that holds `burst` tokens and gains `quota` tokens per `window_seconds`, evenly.
///
/// The names are those of draft-ietf-httpapi-ratelimit-headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub name: String,
    pub quota: u64,
    pub window_seconds: u64,
    /// The size of the bucket; `quota` where the configuration doesn't say.
    #[serde(default)]
    pub burst: Option<u64>,
}

/// Why a policy is impossible. Each names its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("name must be 1 to {POLICY_NAME_LEN_MAX} letters, digits, '.', '_' or '-'")]
    Name,
    #[error("quota must be 1 to {TOKENS_MAX} tokens")]
    Quota,
    #[error("window_seconds must be 1 to {WINDOW_SECONDS_MAX}")]
    Window,
    #[error("burst must be 1 to {TOKENS_MAX} tokens")]
    Burst,
    #[error(
        "burst x window_seconds must be below {BURST_WINDOW_MAX}: choose a shorter window or a smaller burst"
    )]
    TooLarge,
}

impl PolicyError {
    /// The field that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            PolicyError::Name => "name",
            PolicyError::Quota => "quota",
            PolicyError::Window => "window_seconds",
            PolicyError::Burst | PolicyError::TooLarge => "burst",
        }
    }
}

impl Policy {
    /// The size of the bucket in tokens.
    pub fn burst(&self) -> u64 {
        self.burst.unwrap_or(self.quota)
    }

    /// Everything that is wrong with this policy.
    pub fn problems(&self) -> Vec<PolicyError> {
        let mut problems = Vec::new();
        let name_ok = (1..=POLICY_NAME_LEN_MAX).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !name_ok {
            problems.push(PolicyError::Name);
        }
        if !(1..=TOKENS_MAX).contains(&self.quota) {
            problems.push(PolicyError::Quota);
        }
        if !(1..=WINDOW_SECONDS_MAX).contains(&self.window_seconds) {
            problems.push(PolicyError::Window);
        }
        if self
            .burst
            .is_some_and(|burst| !(1..=TOKENS_MAX).contains(&burst))
        {
            problems.push(PolicyError::Burst);
        }
        if problems.is_empty() && self.burst() * self.window_seconds >= BURST_WINDOW_MAX {
            problems.push(PolicyError::TooLarge);
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, quota: u64, window_seconds: u64, burst: Option<u64>) -> Policy {
        Policy {
            name: name.to_owned(),
            quota,
            window_seconds,
            burst,
        }
    }

    #[test]
    fn sound_policies_have_no_problems() {
        for sound in [
            policy("default", 600, 60, Some(100)),
            policy("a.b-c_9", 1, 1, None),
            policy("day", 1_000_000, 86_400, None),
        ] {
            assert_eq!(sound.problems(), [], "{sound:?}");
        }
    }

    #[test]
    fn every_problem_is_reported() {
        use PolicyError::*;
        assert_eq!(
            policy("", 0, 0, Some(0)).problems(),
            [Name, Quota, Window, Burst]
        );
        assert_eq!(policy("a\"b", 1, 1, None).problems(), [Name]);
        assert_eq!(policy("a", TOKENS_MAX + 1, 1, None).problems(), [Quota]);
        assert_eq!(
            policy("a", TOKENS_MAX, WINDOW_SECONDS_MAX, None).problems(),
            [TooLarge]
        );
    }

    #[test]
    fn burst_defaults_to_quota() {
        assert_eq!(policy("a", 7, 1, None).burst(), 7);
        assert_eq!(policy("a", 7, 1, Some(3)).burst(), 3);
    }
}
