//! What a request presents: a text that may be a key, and where it came as HTTP Basic the user and the
//! password that an imported login may answer to.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::proofs::{Digest, Proof};
use crate::key::Pair;

/// What a request presents. Not to be printed.
pub struct Offer<'a> {
    /// The text that is the key, if it is one.
    pub key: Cow<'a, str>,
    /// User and password, where they may be a login. Never where the key has the form of our own: then
    /// it is one, whatever stands beside it.
    pub pair: Option<Pair>,
}

/// What is remembered about an [`Offer`].
pub enum Recalled {
    Proven(Proof),
    /// It was wrong a moment ago.
    Refused,
    /// On the heap: what a warm request may wait for has no room for it.
    Unknown(Box<Unverified>),
}

/// What has to be verified of an [`Offer`].
pub struct Unverified {
    /// Not where it is too long to be a key, or was wrong a moment ago.
    pub(super) key: Option<(Zeroizing<String>, Digest)>,
    pub(super) pair: Option<(Pair, Digest)>,
}
