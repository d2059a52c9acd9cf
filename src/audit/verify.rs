//! Walks through the chain of a store, a page at a time.

use serde_json::{Value, json};

use super::chain::{Anchor, Broken, Chain, Fault};
use super::entry::Head;
use super::seal::Sealer;
use crate::store::{AuditStore, StoreError};

/// What a verification has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Entries that hold, from the first.
    pub entries: i64,
    /// The end of the chain when the verification began, or what holds of it.
    pub head: Anchor,
    pub broken: Option<Broken>,
}

impl Verdict {
    /// As the API and the command line tell it.
    pub fn json(&self) -> Value {
        match &self.broken {
            None => json!({
                "intact": true,
                "entries": self.entries,
                "head": {"seq": self.head.seq, "hash": self.head.hash},
            }),
            Some(broken) => json!({
                "intact": false,
                "entries": self.entries,
                "broken": {
                    "seq": broken.seq,
                    "problem": broken.fault.as_str(),
                    "detail": broken.fault.explanation(),
                },
            }),
        }
    }
}

/// Verifies the chain up to the head that it has now; entries that are added meanwhile are left to the
/// next verification. `anchor` has to be in it, and what this process has written. `progress` is told how
/// many entries are done, of how many.
pub async fn verify(
    store: &dyn AuditStore,
    sealer: &Sealer,
    anchor: Option<Anchor>,
    progress: impl FnMut(i64, i64),
) -> Result<Verdict, StoreError> {
    walk(store, sealer, None, anchor, progress).await
}

/// Verifies what has come after `known`, which was verified before. What is wrong before it by now is not
/// found.
pub async fn verify_after(
    store: &dyn AuditStore,
    sealer: &Sealer,
    known: Anchor,
) -> Result<Verdict, StoreError> {
    walk(store, sealer, Some(known), None, |_, _| {}).await
}

async fn walk(
    store: &dyn AuditStore,
    sealer: &Sealer,
    known: Option<Anchor>,
    anchor: Option<Anchor>,
    mut progress: impl FnMut(i64, i64),
) -> Result<Verdict, StoreError> {
    // Before the head, which therefore comes after it.
    let anchors = anchor.into_iter().chain(store.witnessed()).collect();
    let Some(head) = store.audit_head().await? else {
        let chain = Chain::new(sealer, Head::genesis(), Vec::new());
        return Ok(verdict(
            &chain,
            Err(Broken {
                seq: 0,
                fault: Fault::Head,
            }),
        ));
    };
    let goal = head.seq;
    let mut chain = Chain::new(sealer, head, anchors);
    let mut after = i64::MIN;
    if let Some(known) = known {
        after = known.seq;
        chain = chain.known_up_to(known);
    }
    loop {
        let page = store.chain_page(after).await?;
        for found in &page {
            if found.seq > goal && chain.last().seq == goal {
                return finish(store, &chain, found.seq).await;
            }
            if let Err(broken) = chain.next(found) {
                return Ok(verdict(&chain, Err(broken)));
            }
            after = found.seq;
        }
        if page.is_empty() {
            return Ok(verdict(&chain, chain.finish()));
        }
        progress(chain.last().seq, goal);
        // A page may come without waiting for anything: others have their turn.
        tokio::task::yield_now().await;
    }
}

/// The end of a chain that goes on with entry `beyond`, which was added meanwhile if the head has moved.
async fn finish(
    store: &dyn AuditStore,
    chain: &Chain<'_>,
    beyond: i64,
) -> Result<Verdict, StoreError> {
    let head = store.audit_head().await?;
    if head.is_some_and(|head| head.seq >= beyond) {
        return Ok(verdict(chain, chain.finish()));
    }
    let inserted = Broken {
        seq: beyond,
        fault: Fault::Inserted,
    };
    // An anchor further on is not there because this is.
    let result = match chain.finish() {
        Err(broken) if broken.fault != Fault::Anchor => Err(broken),
        Ok(()) | Err(_) => Err(inserted),
    };
    Ok(verdict(chain, result))
}

fn verdict(chain: &Chain<'_>, result: Result<(), Broken>) -> Verdict {
    Verdict {
        entries: chain.last().seq,
        head: chain.last().clone(),
        broken: result.err(),
    }
}
