//! Pages in any order, by reading all keys of the filter. To be replaced by indexes of the orders.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::list::Place;
use super::sql::SqlStore;
use super::{
    KeyFilter, KeyOrder, PAGE_LEN_MAX, Page, PageFrom, Position, SortBy, StoreError, UsageStore,
    Value, search,
};
use crate::key::record::Standing;
use crate::key::{KeyId, KeyRecord};

fn compare(order: KeyOrder, a: (&Value, &KeyId), b: (&Value, &KeyId)) -> Ordering {
    let is_nothing = |value: &Value| *value == Value::Nothing;
    is_nothing(a.0).cmp(&is_nothing(b.0)).then_with(|| {
        let ascending = a.0.cmp(b.0).then_with(|| a.1.as_str().cmp(b.1.as_str()));
        if order.is_descending {
            ascending.reverse()
        } else {
            ascending
        }
    })
}

fn value(order: KeyOrder, record: &KeyRecord, last: Option<i64>) -> Value {
    let number = |number: Option<i64>| number.map_or(Value::Nothing, Value::Number);
    match order.by {
        SortBy::Created => Value::from(record.created_at),
        SortBy::Name => Value::Text(search::searched(record)),
        SortBy::LastUsed => number(last),
        SortBy::Expires => number(record.expires_at.map(|at| at.as_millis())),
        SortBy::RotationDue => number(
            (record.standing != Standing::Revoked).then(|| record.rotation_due_at().as_millis()),
        ),
    }
}

impl SqlStore {
    pub(super) async fn read_page(
        &self,
        filter: &KeyFilter,
        order: KeyOrder,
        from: &PageFrom,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let (mut all, mut after): (Vec<KeyRecord>, Option<Place>) = (Vec::new(), None);
        loop {
            let read = self.read_newest(filter, after, PAGE_LEN_MAX).await?;
            all.extend(read.keys);
            after = read.next;
            if after.is_none() {
                break;
            }
        }
        let mut last: HashMap<KeyId, i64> = HashMap::new();
        for ids in all.chunks(PAGE_LEN_MAX) {
            let ids: Vec<KeyId> = ids.iter().map(|key| key.id).collect();
            for one in self.last_uses(&ids).await? {
                let at = last.entry(one.key_id).or_default();
                *at = one.last.at.as_millis().max(*at);
            }
        }
        let mut keys: Vec<(Value, KeyRecord)> = all
            .into_iter()
            .map(|key| (value(order, &key, last.get(&key.id).copied()), key))
            .collect();
        keys.sort_by(|a, b| compare(order, (&a.0, &a.1.id), (&b.0, &b.1.id)));
        let split = |position: &Position| {
            keys.partition_point(|(value, key)| {
                match compare(order, (value, &key.id), (&position.value, &position.id)) {
                    Ordering::Less => true,
                    Ordering::Equal => position.is_behind,
                    Ordering::Greater => false,
                }
            })
        };
        let range = match from {
            PageFrom::Start => 0..limit.min(keys.len()),
            PageFrom::After(position) => {
                let start = split(position);
                start..(start + limit).min(keys.len())
            }
            PageFrom::Before(position) => {
                let end = split(position);
                end.saturating_sub(limit)..end
            }
        };
        let next = (range.end < keys.len() && range.end > 0).then(|| {
            let (value, key) = &keys[range.end - 1];
            Position::behind(value.clone(), key.id)
        });
        let previous = (range.start > 0 && range.start < keys.len()).then(|| {
            let (value, key) = &keys[range.start];
            Position::before(value.clone(), key.id)
        });
        Ok(Page {
            keys: keys[range].iter().map(|(_, key)| key.clone()).collect(),
            next,
            previous,
        })
    }
}
