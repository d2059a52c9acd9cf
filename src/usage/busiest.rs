//! Which tenants are the busiest, for metrics: a few have series of their own, and a set that changed all
//! the time would be series without end. Pure.
//!
//! A tenant's score is its requests, of which those count half that are half an hour old. Who is in stays
//! until somebody has clearly more, so two that are alike don't take turns.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use crate::key::TenantId;

/// After this time a request counts half.
const HALF_LIFE_US: f64 = 1_800e6;
/// Who takes another's place has so many times its score.
const LEAD: f64 = 1.5;
/// Who has less is as good as never seen.
const SCORE_MIN: f64 = 0.01;
/// Scores of so many tenants are kept beside those that are in; of more the smallest are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Who came in and who left with the latest requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub entered: Vec<TenantId>,
    pub left: Vec<TenantId>,
}

/// The busiest tenants.
#[derive(Debug)]
pub struct Busiest {
    max: usize,
    scores: HashMap<TenantId, f64>,
    members: BTreeSet<TenantId>,
    now_us: u64,
}

impl Busiest {
    /// Nobody yet, and never more than `max`.
    pub fn new(max: usize) -> Self {
        Busiest {
            max,
            scores: HashMap::new(),
            members: BTreeSet::new(),
            now_us: 0,
        }
    }

    /// Adds `requests` of tenants, and decides who is in now.
    pub fn add<'a>(
        &mut self,
        requests: impl Iterator<Item = (&'a TenantId, u64)>,
        now_us: u64,
    ) -> Change {
        self.fade(now_us);
        for (tenant, count) in requests {
            match self.scores.get_mut(tenant) {
                Some(score) => *score += count as f64,
                None => {
                    self.scores.insert(tenant.clone(), count as f64);
                }
            }
        }
        self.forget();
        self.choose()
    }

    fn fade(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.now_us) as f64;
        self.now_us = now_us.max(self.now_us);
        let left = 0.5_f64.powf(passed / HALF_LIFE_US);
        self.scores.values_mut().for_each(|score| *score *= left);
    }

    fn forget(&mut self) {
        let members = &self.members;
        self.scores
            .retain(|tenant, score| *score >= SCORE_MIN || members.contains(tenant));
        let excess = self.scores.len().saturating_sub(REMEMBERED_MAX + self.max);
        if excess > 0 {
            let mut others = self.others();
            others.select_nth_unstable_by(excess - 1, |a, b| by_score(b, a));
            others.truncate(excess);
            for (tenant, _) in others {
                self.scores.remove(&tenant);
            }
        }
    }

    fn others(&self) -> Vec<(TenantId, f64)> {
        let all = self.scores.iter();
        all.filter(|(tenant, _)| !self.members.contains(*tenant))
            .map(|(tenant, score)| (tenant.clone(), *score))
            .collect()
    }

    fn choose(&mut self) -> Change {
        let mut others = self.others();
        others.sort_unstable_by(by_score);
        let mut change = Change::default();
        let mut others = others.into_iter().peekable();
        while self.members.len() < self.max
            && let Some((tenant, _)) = others.next()
        {
            self.members.insert(tenant.clone());
            change.entered.push(tenant);
        }
        for (weakest, score) in self.weakest_first() {
            let Some((better, _)) = others.next_if(|(_, theirs)| *theirs > score * LEAD) else {
                break;
            };
            self.members.remove(&weakest);
            self.members.insert(better.clone());
            change.left.push(weakest);
            change.entered.push(better);
        }
        change
    }

    fn weakest_first(&self) -> Vec<(TenantId, f64)> {
        let score = |tenant: &TenantId| self.scores.get(tenant).copied().unwrap_or_default();
        let members = self.members.iter();
        let mut members: Vec<_> = members.map(|id| (id.clone(), score(id))).collect();
        members.sort_unstable_by(|a, b| by_score(b, a));
        members
    }
}

/// The busiest first; of those that are alike, the first by name.
fn by_score(a: &(TenantId, f64), b: &(TenantId, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_US: u64 = 3_600_000_000;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    /// Adds requests such as `a=3 b=1`; who came and who left, such as `+a -b`.
    fn add(busiest: &mut Busiest, requests: &str, now_us: u64) -> String {
        let requests: Vec<(TenantId, u64)> = requests
            .split_whitespace()
            .map(|text| text.split_once('=').unwrap())
            .map(|(name, count)| (tenant(name), count.parse().unwrap()))
            .collect();
        let change = busiest.add(requests.iter().map(|(id, n)| (id, *n)), now_us);
        let left = change.left.iter().map(|id| format!("-{id}"));
        let entered = change.entered.iter().map(|id| format!("+{id}"));
        left.chain(entered).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_busiest_are_in() {
        let mut busiest = Busiest::new(2);
        assert_eq!(add(&mut busiest, "a=10 b=30 c=20", 0), "+b +c");
        // Half as much again is needed as the weakest has.
        assert_eq!(add(&mut busiest, "a=19", 1), "");
        assert_eq!(add(&mut busiest, "a=2", 2), "-c +a");
        assert_eq!(add(&mut busiest, "", 3), "");
    }

    #[test]
    fn nobody_is_in_where_there_is_no_place() {
        assert_eq!(add(&mut Busiest::new(0), "a=1000000", 0), "");
    }

    #[test]
    fn what_is_long_ago_counts_little() {
        let mut busiest = Busiest::new(1);
        assert_eq!(add(&mut busiest, "a=1000", 0), "+a");
        assert_eq!(add(&mut busiest, "b=100", 1), "");
        // a has 62 by now, and b 6.
        assert_eq!(add(&mut busiest, "b=80", 2 * HOUR_US), "");
        assert_eq!(add(&mut busiest, "b=10", 2 * HOUR_US), "-a +b");
    }

    #[test]
    fn who_is_silent_keeps_a_place_that_nobody_wants() {
        let mut busiest = Busiest::new(2);
        add(&mut busiest, "a=1 b=5", 0);
        assert_eq!(add(&mut busiest, "", 20 * HOUR_US), "");
        assert_eq!(add(&mut busiest, "c=1", 20 * HOUR_US), "-a +c");
        // Who is out and as good as never seen is forgotten.
        add(&mut busiest, "", 20 * HOUR_US);
        assert_eq!(busiest.scores.len(), 2);
    }

    #[test]
    fn those_that_are_alike_take_no_turns() {
        let mut busiest = Busiest::new(5);
        let all: Vec<String> = (10..20).map(|n| format!("t{n}=10")).collect();
        add(&mut busiest, &all.join(" "), 0);
        for round in 1..500 {
            // Each has a little more than the others now and then.
            let lucky = format!("t{}=12", 10 + round % 10);
            let requests = format!("{} {lucky}", all.join(" "));
            assert_eq!(
                add(&mut busiest, &requests, round * 10_000_000),
                "",
                "{round}"
            );
        }
    }

    #[test]
    fn not_every_tenant_is_remembered() {
        let mut busiest = Busiest::new(1);
        let names: Vec<TenantId> = (0..3 * REMEMBERED_MAX)
            .map(|n| tenant(&format!("t{n}")))
            .collect();
        busiest.add(names.iter().zip(1..), 0);
        assert_eq!(busiest.scores.len(), REMEMBERED_MAX + 1);
        // The small ones are forgotten.
        assert!(!busiest.scores.contains_key(&names[0]));
        assert!(busiest.members.contains(&names[3 * REMEMBERED_MAX - 1]));
    }

    proptest! {
        /// Whatever comes: never too many, what is told of changes is what changed, and nobody outside has
        /// clearly more than anybody inside.
        #[test]
        fn who_is_in(
            max in 0_usize..5,
            rounds in prop::collection::vec(
                (prop::collection::vec((0_usize..12, 1_u64..1_000), 0..12), 0_u64..HOUR_US), 1..30),
        ) {
            let names: Vec<TenantId> = (0..12).map(|n| tenant(&format!("t{n}"))).collect();
            let mut busiest = Busiest::new(max);
            let mut told = BTreeSet::new();
            let mut now_us = 0;
            for (requests, pause_us) in rounds {
                now_us += pause_us;
                let change = busiest.add(requests.iter().map(|(n, count)| (&names[*n], *count)), now_us);
                for id in change.left {
                    prop_assert!(told.remove(&id));
                }
                for id in change.entered {
                    prop_assert!(told.insert(id));
                }
                prop_assert_eq!(&told, &busiest.members);
                prop_assert!(told.len() <= max);
                let weakest = busiest.weakest_first().first().map(|(_, score)| *score);
                for (_, score) in busiest.others() {
                    prop_assert!(max == 0 || score <= weakest.unwrap() * LEAD);
                }
            }
        }
    }
}
