//! Keys of one tenant, each with a bucket of its own and one that all of them share.

use super::*;

const KEYS: usize = 3;
const INSTANCES: usize = 2;

/// What the keys' own buckets and the common one hold.
struct Tenant {
    /// The bucket of the key that is looked at, and the common one.
    shared: Shared,
    own: [State; KEYS],
}

impl Tenant {
    fn with<T>(&mut self, key: usize, work: impl FnOnce(&mut Shared) -> T) -> T {
        self.shared.states[0] = self.own[key];
        let result = work(&mut self.shared);
        self.own[key] = self.shared.states[0];
        result
    }
}

fn place() -> impl Strategy<Value = (usize, usize)> {
    (0..INSTANCES, 0..KEYS)
}

#[derive(Debug, Clone)]
enum Event {
    Requests((usize, usize), u64, u64),
    Land((usize, usize)),
    Arrive((usize, usize), usize),
    Expire((usize, usize)),
    Kill(usize),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (place(), 1u64..30, 0u64..12).prop_map(|(at, n, cost)| Event::Requests(at, n, cost)),
        6 => place().prop_map(Event::Land),
        6 => (place(), 0usize..100).prop_map(|(at, which)| Event::Arrive(at, which)),
        3 => place().prop_map(Event::Expire),
        1 => (0..INSTANCES).prop_map(Event::Kill),
        6 => (0u64..30_000).prop_map(Event::Pass),
        1 => (0u64..3_000_000).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..300)
}

fn slow() -> [Instance; KEYS] {
    std::array::from_fn(|_| Instance {
        is_slow: true,
        ..Instance::default()
    })
}

proptest! {
    /// Each key holds tokens of its own and of the common bucket on each instance, and gives them back
    /// or takes them with it: what passes is never more than the key's limit allows it, nor more than
    /// the tenant's allows all of them.
    #[test]
    fn keys_that_share_a_bucket_let_no_token_too_many_through(
        events in events(),
        own in (1u64..3000, 1u64..10, 1u64..BURST_MAX),
        common in (1u64..3000, 1u64..10, 1u64..BURST_MAX),
    ) {
        let rates = [own, common].map(|(quota, window, burst)| rate(quota, window, burst));
        let mut tenant = Tenant {
            shared: Shared::new(&rates),
            own: [rates[0].full(0); KEYS],
        };
        let mut instances: [[Instance; KEYS]; INSTANCES] = std::array::from_fn(|_| slow());
        let (mut now_us, mut passed) = (0u64, [0u64; KEYS]);
        for event in events {
            match event {
                Event::Pass(us) => now_us += us,
                Event::Land((i, k)) => tenant.with(k, |s| instances[i][k].land(s, now_us)),
                Event::Arrive((i, k), n) => {
                    passed[k] += tenant.with(k, |s| instances[i][k].arrive(s, n, now_us));
                }
                Event::Kill(i) => instances[i] = slow(),
                Event::Expire((i, k)) => {
                    let back = instances[i][k].lease.expire(now_us);
                    tenant.with(k, |s| s.give_back(back.unwrap_or(0)));
                }
                Event::Requests((i, k), count, cost) => {
                    for _ in 0..count {
                        let outcome = tenant.with(k, |s| instances[i][k].request(s, cost, now_us));
                        passed[k] += if outcome == Some(true) { cost } else { 0 };
                    }
                }
            }
            for of_one in passed {
                prop_assert!(of_one <= most(&[own], now_us), "{of_one} at {now_us}");
            }
            let all: u64 = passed.iter().sum();
            prop_assert!(all <= most(&[common], now_us), "{all} at {now_us}");
        }
        // In the end everything arrives, goes back, as at shutdown, and everybody takes what there is.
        for (i, k) in (0..INSTANCES).flat_map(|i| (0..KEYS).map(move |k| (i, k))) {
            let instance = &mut instances[i][k];
            tenant.with(k, |shared| {
                instance.land(shared, now_us);
                shared.give_back(instance.lease.expire(u64::MAX).unwrap_or(0));
            });
        }
        for (i, k) in (0..INSTANCES).flat_map(|i| (0..KEYS).map(move |k| (i, k))) {
            let instance = &mut instances[i][k];
            tenant.with(k, |shared| {
                while !instance.direct.is_empty() {
                    passed[k] += instance.arrive(shared, 0, now_us);
                }
                instance.is_slow = false;
                for _ in 0..2 * BURST_MAX {
                    passed[k] += u64::from(instance.request(shared, 1, now_us) == Some(true));
                    instance.land(shared, now_us);
                }
            });
        }
        let all: u64 = passed.iter().sum();
        prop_assert!(all <= most(&[common], now_us), "{all} at {now_us}");
    }
}
