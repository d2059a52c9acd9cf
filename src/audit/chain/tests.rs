//! Whatever is done to a chain is found, and named.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::{Action, Actor, Note, Origin};
use crate::clock::Timestamp;

fn sealer() -> Sealer {
    Sealer::new(&[[7; 32]])
}

fn note(n: i64) -> Note {
    let n_id = format!("{n:012}");
    Note {
        at: Timestamp::from_millis(1_000 * n),
        action: Action::ALL[n.unsigned_abs() as usize % Action::ALL.len()],
        origin: Origin {
            actor: if n % 3 == 0 {
                Actor::System
            } else {
                Actor::Key(n_id.parse().unwrap())
            },
            address: (n % 2 == 0).then(|| "192.0.2.1".parse().unwrap()),
            request_id: Some(format!("r{n}")),
        },
        key_id: Some(n_id.parse().unwrap()),
        tenant_id: (n % 4 != 0).then(|| "acme".parse().unwrap()),
        details: serde_json::Map::from_iter([("n".to_owned(), json!(n))]),
    }
}

/// A chain of `len` entries, and its head.
fn chain(len: i64) -> (Vec<Entry>, Head) {
    let (mut entries, mut head) = (Vec::new(), Head::genesis());
    for n in 1..=len {
        let entry = Entry::after(&head, &note(n), &sealer());
        head = entry.as_head();
        entries.push(entry);
    }
    (entries, head)
}

/// What a verification of rows as a database would give them says.
fn verify(entries: &[Entry], head: &Head, anchor: Option<Anchor>) -> Result<Anchor, Broken> {
    let sealer = sealer();
    let mut rows = entries.to_vec();
    rows.sort_by_key(|entry| entry.seq);
    let mut chain = Chain::new(&sealer, head.clone(), anchor.into_iter().collect());
    for entry in rows {
        chain.next(&Found {
            seq: entry.seq,
            entry: Some(entry),
        })?;
    }
    chain.finish()?;
    Ok(chain.last().clone())
}

fn broken(entries: &[Entry], head: &Head) -> (i64, Fault) {
    let broken = verify(entries, head, None).unwrap_err();
    (broken.seq, broken.fault)
}

/// Each field of an entry but for its place and its seal, changed.
fn edits(entry: &Entry) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut with = |edit: &dyn Fn(&mut Entry)| {
        let mut edited = entry.clone();
        edit(&mut edited);
        if edited != *entry {
            all.push(edited);
        }
    };
    with(&|entry| entry.at += 1);
    with(&|entry| entry.at = -1);
    with(&|entry| entry.at = i64::MAX);
    with(&|entry| entry.action.push('x'));
    with(&|entry| entry.actor.push('x'));
    with(&|entry| entry.actor = "unknown".to_owned());
    with(&|entry| entry.actor = entry.actor.replace(':', ""));
    let texts: [fn(&mut Entry) -> &mut Option<String>; 4] = [
        |entry| &mut entry.key_id,
        |entry| &mut entry.tenant_id,
        |entry| &mut entry.address,
        |entry| &mut entry.request_id,
    ];
    for text in texts {
        with(&|entry| *text(entry) = None);
        with(&|entry| *text(entry) = Some("null".to_owned()));
        with(&|entry| *text(entry) = Some("\"".to_owned()));
    }
    with(&|entry| entry.details.push(' '));
    with(&|entry| entry.details = "{}".to_owned());
    with(&|entry| entry.details = r#"{},"x":{}"#.to_owned());
    with(&|entry| entry.previous_hash = GENESIS.replace('0', "1"));
    with(&|entry| entry.previous_hash.clear());
    with(&|entry| entry.hash = GENESIS.replace('0', "1"));
    with(&|entry| entry.hash = entry.hash.to_uppercase());
    all
}

#[test]
fn a_sound_chain_holds() {
    for len in [0, 1, 2, 30] {
        let (entries, head) = chain(len);
        let last = verify(&entries, &head, None).unwrap();
        assert_eq!((last.seq, &last.hash), (len, &head.hash));
        let anchor: Anchor = last.to_string().parse().unwrap();
        assert_eq!(verify(&entries, &head, Some(anchor)), Ok(last));
    }
}

#[test]
fn every_edit_of_every_field_of_every_entry_is_found() {
    let (entries, head) = chain(8);
    for (index, entry) in entries.iter().enumerate() {
        for edited in edits(entry) {
            let mut entries = entries.clone();
            entries[index] = edited.clone();
            assert_eq!(
                broken(&entries, &head),
                (entry.seq, Fault::Edited),
                "{edited:?}"
            );
            if edited.hash != entry.hash || edited.previous_hash != entry.previous_hash {
                continue;
            }
            // With its hash and all later ones computed again.
            for index in index..entries.len() {
                if let Some(before) = index.checked_sub(1) {
                    entries[index].previous_hash = entries[before].hash.clone();
                }
                entries[index].hash = entries[index].computed_hash();
            }
            assert_eq!(broken(&entries, &head), (entry.seq, Fault::Unsealed));
        }
        let mut entries = entries.clone();
        entries[index].seal = sealer().seal("another");
        assert_eq!(broken(&entries, &head), (entry.seq, Fault::Unsealed));
    }
}

#[test]
fn every_removal_is_found() {
    let (entries, head) = chain(8);
    for index in 0..entries.len() {
        let seq = entries[index].seq;
        let mut rest = entries.clone();
        rest.remove(index);
        let is_last = seq == 8;
        let fault = if is_last { Fault::Cut } else { Fault::Removed };
        assert_eq!(broken(&rest, &head), (seq, fault));
        // With the gap closed.
        for entry in &mut rest[index..] {
            entry.seq -= 1;
        }
        let fault = if is_last {
            Fault::Cut
        } else {
            Fault::Reordered
        };
        assert_eq!(broken(&rest, &head), (seq, fault));
        // With the hashes computed again.
        for index in index..rest.len() {
            if index > 0 {
                rest[index].previous_hash = rest[index - 1].hash.clone();
            } else {
                rest[index].previous_hash = GENESIS.to_owned();
            }
            rest[index].hash = rest[index].computed_hash();
        }
        let fault = if is_last { Fault::Cut } else { Fault::Unsealed };
        assert_eq!(broken(&rest, &head), (seq, fault));
    }
}

#[test]
fn every_swap_is_found() {
    let (entries, head) = chain(8);
    for a in 0..entries.len() {
        for b in a + 1..entries.len() {
            let mut swapped = entries.clone();
            (swapped[a].seq, swapped[b].seq) = (entries[b].seq, entries[a].seq);
            assert_eq!(broken(&swapped, &head), (entries[a].seq, Fault::Reordered));
        }
    }
}

#[test]
fn every_insertion_is_found() {
    let (entries, head) = chain(8);
    for index in 0..=entries.len() {
        let before = index.checked_sub(1).map(|last| entries[last].as_head());
        let forged = Entry::after(
            &before.unwrap_or_else(Head::genesis),
            &note(99),
            &Sealer::new(&[[8; 32]]),
        );
        let mut all = entries.clone();
        for entry in &mut all[index..] {
            entry.seq += 1;
        }
        all.push(forged.clone());
        let seq = index as i64 + 1;
        // Its hash fits, and its seal is another's.
        assert_eq!(broken(&all, &head), (seq, Fault::Unsealed));
        let last = all.len() - 1;
        all[last].previous_hash = GENESIS.replace('0', "2");
        all[last].hash = all[last].computed_hash();
        assert_eq!(broken(&all, &head), (seq, Fault::Inserted));
    }
    for seq in [0, -1, i64::MIN] {
        let mut all = entries.clone();
        all.push(Entry {
            seq,
            ..entries[3].clone()
        });
        assert_eq!(broken(&all, &head), (seq, Fault::Inserted));
    }
}

#[test]
fn the_head_and_anchors_are_compared() {
    let (entries, head) = chain(8);
    let older = entries[5].as_head();
    let edits: [fn(&mut Head); 3] = [
        |head| head.hash = GENESIS.to_owned(),
        |head| head.seal.clear(),
        |head| head.seq -= 1,
    ];
    for edit in edits {
        let mut edited = head.clone();
        edit(&mut edited);
        assert_eq!(broken(&entries, &edited).1, Fault::Head);
    }
    assert_eq!(
        broken(
            &entries,
            &Head {
                seq: 9,
                ..head.clone()
            }
        ),
        (9, Fault::Cut)
    );
    // Cut together with the head: only an anchor shows it.
    let cut = &entries[..6];
    assert!(verify(cut, &older, None).is_ok());
    let anchor = |seq: i64, hash: &str| {
        Some(Anchor {
            seq,
            hash: hash.to_owned(),
        })
    };
    let at = |seq| {
        Err(Broken {
            seq,
            fault: Fault::Anchor,
        })
    };
    assert_eq!(verify(cut, &older, anchor(8, &head.hash)), at(8));
    assert!(verify(cut, &older, anchor(6, &older.hash)).is_ok());
    assert_eq!(verify(cut, &older, anchor(5, &older.hash)), at(5));
    assert_eq!(verify(&entries, &head, anchor(0, &head.hash)), at(0));
}

#[test]
fn what_is_no_anchor_is_refused() {
    let hash = "a".repeat(HASH_LEN);
    for text in ["", ":", "1", "1:", "x:y", "-1:", "1:abc"] {
        assert_eq!(text.parse::<Anchor>(), Err(AnchorError), "{text}");
    }
    assert_eq!(format!("-1:{hash}").parse::<Anchor>(), Err(AnchorError));
    assert_eq!(format!("1:{hash}x").parse::<Anchor>(), Err(AnchorError));
    let upper = format!("1:{}", hash.to_uppercase());
    assert_eq!(
        upper.parse::<Anchor>().unwrap().to_string(),
        format!("1:{hash}")
    );
}

proptest! {
    /// Rows in any order, some missing, some twice under other numbers, some edited: only the chain as it
    /// was written holds.
    #[test]
    fn only_what_was_written_holds(
        places in proptest::collection::vec((0usize..6, 0usize..40), 0..8),
    ) {
        let (entries, head) = chain(6);
        let rows: Vec<Entry> = places
            .iter()
            .enumerate()
            .map(|(place, (from, edit))| {
                let entry = &entries[*from];
                let edited = edits(entry).get(*edit).cloned();
                Entry { seq: place as i64 + 1, ..edited.unwrap_or_else(|| entry.clone()) }
            })
            .collect();
        prop_assert_eq!(verify(&rows, &head, None).is_ok(), rows == entries);
    }
}
