//! The chain: entries are fed in their order, and the first that does not hold is named. Pure.
//!
//! An entry holds where its place is the next one, the hash that it names is that of the entry before it,
//! its own hash is that of its text, and its seal is that of its hash. What can't be seen: an entry that
//! somebody made who has the mint key, and a chain that was cut at its end together with its head, which
//! looks like the chain as it once was. An [`Anchor`] that was written down elsewhere shows both.

use std::fmt;
use std::str::FromStr;

use super::entry::{Entry, GENESIS, HASH_LEN, Head};
use super::seal::Sealer;

/// What an entry is known by from outside: its place and its hash, written `SEQ:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    pub seq: i64,
    pub hash: String,
}

/// A text that is no anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be SEQ:HASH, a number and {HASH_LEN} hexadecimal digits, as a verification prints it"
)]
pub struct AnchorError;

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Anchor {
    type Err = AnchorError;

    fn from_str(text: &str) -> Result<Self, AnchorError> {
        let (seq, hash) = text.split_once(':').ok_or(AnchorError)?;
        let seq = seq.parse().ok().filter(|seq: &i64| *seq >= 0);
        let is_hash = hash.len() == HASH_LEN && hash.bytes().all(|b| b.is_ascii_hexdigit());
        match seq {
            Some(seq) if is_hash => Ok(Anchor {
                seq,
                hash: hash.to_ascii_lowercase(),
            }),
            _ => Err(AnchorError),
        }
    }
}

/// What is wrong with a chain at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The text of the entry is not the one that was hashed.
    Edited,
    /// There is no entry of that number, and there are later ones.
    Removed,
    /// A genuine entry stands where another one has to.
    Reordered,
    /// An entry that Sidekey did not write.
    Inserted,
    /// The hash fits, but whoever computed it did not have the mint key.
    Unsealed,
    /// The head knows of entries that are not there.
    Cut,
    /// The head is not that of the last entry.
    Head,
    /// The entry that was written down elsewhere is another one, or not there.
    Anchor,
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::Edited,
        Fault::Removed,
        Fault::Reordered,
        Fault::Inserted,
        Fault::Unsealed,
        Fault::Cut,
        Fault::Head,
        Fault::Anchor,
    ];

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Edited => "edited",
            Fault::Removed => "removed",
            Fault::Reordered => "reordered",
            Fault::Inserted => "inserted",
            Fault::Unsealed => "unsealed",
            Fault::Cut => "cut",
            Fault::Head => "head",
            Fault::Anchor => "anchor",
        }
    }

    /// For people.
    pub fn explanation(self) -> &'static str {
        match self {
            Fault::Edited => "its hash does not fit what it says",
            Fault::Removed => "it is not there, and later ones are",
            Fault::Reordered => {
                "it was written elsewhere in the chain, and stands in another one's place"
            }
            Fault::Inserted => "Sidekey did not write it",
            Fault::Unsealed => {
                "its hash fits, but not its seal: it was computed without the mint key"
            }
            Fault::Cut => {
                "it is not there, nor any later one, and the head says that there should be"
            }
            Fault::Head => "the head of the chain does not fit the last entry",
            Fault::Anchor => "it is not the one that the anchor names",
        }
    }
}

/// The first place where a chain does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    pub seq: i64,
    pub fault: Fault,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { seq, fault } = self;
        write!(
            f,
            "entry {seq}: {}: {}",
            fault.as_str(),
            fault.explanation()
        )
    }
}

/// A row as it was found. `entry` is `None` where it can't be read.
#[derive(Debug, Clone)]
pub struct Found {
    pub seq: i64,
    pub entry: Option<Entry>,
}

/// A verification under way.
pub struct Chain<'s> {
    sealer: &'s Sealer,
    head: Head,
    anchors: Vec<Anchor>,
    last: Anchor,
}

impl<'s> Chain<'s> {
    /// A chain that has to reach `head`, which was read before its entries, and to have each of `anchors`.
    pub fn new(sealer: &'s Sealer, head: Head, anchors: Vec<Anchor>) -> Self {
        Chain {
            sealer,
            head,
            anchors,
            last: Anchor {
                seq: 0,
                hash: GENESIS.to_owned(),
            },
        }
    }

    /// The same, of which everything up to `known` was verified before.
    #[must_use]
    pub fn known_up_to(mut self, known: Anchor) -> Self {
        self.last = known;
        self
    }

    /// The newest entry that holds.
    pub fn last(&self) -> &Anchor {
        &self.last
    }

    /// The next row, in the order of their numbers.
    pub fn next(&mut self, found: &Found) -> Result<(), Broken> {
        let seq = self.last.seq + 1;
        let broken = |seq, fault| Err(Broken { seq, fault });
        if found.seq > seq {
            return broken(seq, Fault::Removed);
        }
        if found.seq < seq {
            return broken(found.seq, Fault::Inserted);
        }
        let Some(entry) = &found.entry else {
            return broken(seq, Fault::Edited);
        };
        if let Some(fault) = self.fault_of(entry) {
            return broken(seq, fault);
        }
        self.last = Anchor {
            seq,
            hash: entry.hash.clone(),
        };
        let is_other = |anchor: &Anchor| anchor.seq == seq && anchor.hash != entry.hash;
        if self.anchors.iter().any(is_other) {
            return broken(seq, Fault::Anchor);
        }
        Ok(())
    }

    fn fault_of(&self, entry: &Entry) -> Option<Fault> {
        let follows = entry.previous_hash == self.last.hash;
        let is_hashed = entry.computed_hash() == entry.hash;
        let is_sealed = self.sealer.accepts(&entry.hash, &entry.seal);
        match (follows, is_hashed, is_sealed) {
            (true, true, true) => None,
            (true, true, false) => Some(Fault::Unsealed),
            (true, false, _) => Some(Fault::Edited),
            (false, false, _) if self.fits_once_relinked(entry) => Some(Fault::Edited),
            // Its hash is one that Sidekey has sealed, so the entry is from somewhere.
            (false, _, true) => Some(Fault::Reordered),
            (false, _, false) => Some(Fault::Inserted),
        }
    }

    /// Whether nothing but the hash that it names was changed.
    fn fits_once_relinked(&self, entry: &Entry) -> bool {
        let relinked = Entry {
            previous_hash: self.last.hash.clone(),
            ..entry.clone()
        };
        relinked.computed_hash() == entry.hash
    }

    /// To be asked when there is no further row up to the head's number.
    pub fn finish(&self) -> Result<(), Broken> {
        let broken = |seq, fault| Err(Broken { seq, fault });
        if self.last.seq < self.head.seq {
            return broken(self.last.seq + 1, Fault::Cut);
        }
        let is_sealed = self.head.seq == 0 || self.sealer.accepts(&self.head.hash, &self.head.seal);
        if self.last.seq != self.head.seq || self.last.hash != self.head.hash || !is_sealed {
            return broken(self.head.seq, Fault::Head);
        }
        let is_missing = |anchor: &&Anchor| {
            anchor.seq > self.last.seq || (anchor.seq == 0 && anchor.hash != GENESIS)
        };
        let missing = self.anchors.iter().filter(is_missing);
        match missing.map(|anchor| anchor.seq).min() {
            Some(seq) => broken(seq, Fault::Anchor),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
