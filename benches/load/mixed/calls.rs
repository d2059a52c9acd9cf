//! What the load consists of: kinds of requests, and each request with what is known about it.

use super::world::{Caller, World};

/// Characters of a key's id, and of its secret and check.
const ID_LEN: usize = 12;
const TAIL_LEN: usize = 54;

/// How many kinds there are.
pub const KINDS: usize = 6;

/// Why a request has the answer that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Valid,
    OverLimit,
    WrongScope,
    Forged,
    Expired,
    /// A key's first use, for which bcrypt has to be asked.
    Cold,
}

impl Kind {
    pub const ALL: [Kind; KINDS] = [
        Kind::Valid,
        Kind::OverLimit,
        Kind::WrongScope,
        Kind::Forged,
        Kind::Expired,
        Kind::Cold,
    ];
    /// Of 100 requests; keys are new when their time has come.
    const SHARES: [(Kind, u8); 5] = [
        (Kind::Valid, 60),
        (Kind::OverLimit, 14),
        (Kind::WrongScope, 9),
        (Kind::Forged, 9),
        (Kind::Expired, 8),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Valid => "valid",
            Kind::OverLimit => "over limit",
            Kind::WrongScope => "wrong scope",
            Kind::Forged => "forged",
            Kind::Expired => "expired",
            Kind::Cold => "cold",
        }
    }

    /// What the gateway calls the end of a request of this kind that was answered with `status`.
    pub fn outcome(self, status: u16) -> &'static str {
        match (self, status) {
            (_, 200) => "forwarded",
            (Kind::OverLimit, 429) => "rate_limited",
            (Kind::WrongScope, 403) => "insufficient_scope",
            (Kind::Forged, 401) => "invalid_key",
            (Kind::Expired, 401) => "expired_key",
            (Kind::Cold, 503) => "unavailable",
            _ => "(something else)",
        }
    }

    fn any(random: &mut fastrand::Rng) -> Self {
        let mut point = random.u8(..100);
        for (kind, share) in Kind::SHARES {
            match point.checked_sub(share) {
                Some(rest) => point = rest,
                None => return kind,
            }
        }
        Kind::Valid
    }
}

/// One request.
pub struct Call<'a> {
    pub kind: Kind,
    /// Of its own, so that no other request's answer fits.
    pub target: String,
    /// Whose key it is; nobody's is forged.
    pub caller: Option<&'a Caller>,
    /// The place of a limited key.
    pub limited: Option<usize>,
}

impl<'a> Call<'a> {
    /// Any but a key's first use.
    pub fn any(world: &'a World, random: &mut fastrand::Rng) -> Self {
        let kind = Kind::any(random);
        let limited = random.usize(..world.limited.len());
        let caller = match kind {
            Kind::Forged => None,
            Kind::OverLimit => Some(&world.limited[limited]),
            Kind::Expired => random.choice(&world.expired),
            Kind::Valid | Kind::WrongScope | Kind::Cold => random.choice(&world.valid),
        };
        Call {
            kind,
            target: target(kind, random),
            caller,
            limited: (kind == Kind::OverLimit).then_some(limited),
        }
    }

    /// The first use of `caller`'s key.
    pub fn cold(caller: &'a Caller, random: &mut fastrand::Rng) -> Self {
        Call {
            kind: Kind::Cold,
            target: target(Kind::Cold, random),
            caller: Some(caller),
            limited: None,
        }
    }

    /// The request's bytes.
    pub fn request(&self, world: &World, random: &mut fastrand::Rng) -> Vec<u8> {
        let forged;
        let key = match self.caller {
            Some(caller) => &caller.key.text,
            None => {
                forged = forged_key(world, random);
                &forged
            }
        };
        let target = &self.target;
        format!(
            "GET {target} HTTP/1.1\r\nHost: load.example\r\nAuthorization: Bearer {key}\r\n\r\n"
        )
        .into_bytes()
    }
}

fn target(kind: Kind, random: &mut fastrand::Rng) -> String {
    let path = if kind == Kind::WrongScope {
        "refunds"
    } else {
        "orders"
    };
    format!("/{path}/{:016x}?page={}", random.u64(..), random.u8(..))
}

/// What looks like a key; half of them name the id of one that exists, for ids are no secret.
fn forged_key(world: &World, random: &mut fastrand::Rng) -> String {
    let id = match random.choice(&world.valid) {
        Some(caller) if random.bool() => caller.key.id.clone(),
        _ => base62(random, ID_LEN),
    };
    format!("sk_live_{id}_{}", base62(random, TAIL_LEN))
}

fn base62(random: &mut fastrand::Rng, len: usize) -> String {
    std::iter::repeat_with(|| random.alphanumeric())
        .take(len)
        .collect()
}
