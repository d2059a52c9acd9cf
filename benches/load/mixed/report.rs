//! What a load met, and whether all of it was right.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::calls::{KINDS, Kind};

/// Faults that are kept word for word, for each connection and in the end; all are counted.
const FAULTS_KEPT: usize = 10;
/// Latencies are counted in microseconds, to three digits, up to this.
const LATENCY_US_MAX: u64 = 60_000_000;
const LATENCY_DIGITS: u8 = 3;
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Answers to one kind of request.
pub struct KindTally {
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that were not as they should be.
    pub wrong: u64,
    latencies_us: Histogram<u64>,
}

impl KindTally {
    fn new() -> Self {
        KindTally {
            statuses: BTreeMap::new(),
            wrong: 0,
            latencies_us: Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("sound bounds"),
        }
    }

    pub fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    fn add(&mut self, other: &KindTally) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.wrong += other.wrong;
        self.latencies_us
            .add(&other.latencies_us)
            .expect("the same bounds");
    }
}

/// Answers by kind, and what was wrong.
pub struct Tally {
    kinds: [KindTally; KINDS],
    pub faults: Vec<String>,
    pub fault_count: u64,
}

impl Tally {
    pub fn new() -> Self {
        Tally {
            kinds: std::array::from_fn(|_| KindTally::new()),
            faults: Vec::new(),
            fault_count: 0,
        }
    }

    pub fn of(&self, kind: Kind) -> &KindTally {
        &self.kinds[kind as usize]
    }

    pub fn answers(&self) -> u64 {
        self.kinds.iter().map(KindTally::answers).sum()
    }

    pub fn note(&mut self, kind: Kind, status: u16, took: Duration) {
        let tally = &mut self.kinds[kind as usize];
        *tally.statuses.entry(status).or_default() += 1;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tally.latencies_us.saturating_record(us);
    }

    /// An answer was wrong.
    pub fn wrong(&mut self, kind: Kind, what: String) {
        self.kinds[kind as usize].wrong += 1;
        self.fault(what);
    }

    /// Something was.
    pub fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(what);
        }
    }

    /// Something was that only all answers together show. Told first.
    pub fn fault_of_all(&mut self, what: String) {
        self.fault_count += 1;
        self.faults.insert(0, what);
    }

    pub fn add(&mut self, other: Tally) {
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            mine.add(theirs);
        }
        self.fault_count += other.fault_count;
        let room = FAULTS_KEPT.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.into_iter().take(room));
    }

    /// How many answers the gateway should have counted as `outcome`.
    pub fn with_outcome(&self, outcome: &str) -> u64 {
        let all = Kind::ALL.iter().flat_map(|&kind| {
            let statuses = self.of(kind).statuses.iter();
            statuses.map(move |(status, count)| (kind.outcome(*status), count))
        });
        all.filter(|(known, _)| *known == outcome)
            .map(|(_, count)| count)
            .sum()
    }
}

/// Memory of the gateway in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

/// A whole run.
pub struct Report {
    pub tally: Tally,
    pub took: Duration,
    pub connections: usize,
    pub before: Memory,
    pub after: Memory,
    pub bcrypt_runs: u64,
}

impl Report {
    /// Whether every answer was right, and everything that was counted as well.
    pub fn is_right(&self) -> bool {
        self.tally.fault_count == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, answers) = (self.took.as_secs_f64(), self.tally.answers());
        writeln!(
            f,
            "{answers} answers in {seconds:.1} s over {} connections: {:.0} a second\n",
            self.connections,
            answers as f64 / seconds
        )?;
        write!(f, "{:<12} {:>9} {:>9}", "ms", "answers", "a second")?;
        writeln!(
            f,
            " {:>8} {:>8} {:>8} {:>8} {:>8}  by status",
            "p50", "p90", "p99", "p99.9", "most"
        )?;
        for kind in Kind::ALL {
            let tally = self.tally.of(kind);
            write!(
                f,
                "{:<12} {:>9} {:>9.1}",
                kind.name(),
                tally.answers(),
                tally.answers() as f64 / seconds
            )?;
            for quantile in QUANTILES {
                let us = tally.latencies_us.value_at_quantile(quantile);
                write!(f, " {:>8.2}", us as f64 / 1000.0)?;
            }
            let most = tally.latencies_us.max() as f64 / 1000.0;
            writeln!(f, " {most:>8.2}  {:?}", tally.statuses)?;
        }
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(
            f,
            "\nmemory: {:.1} MiB resident at the start, {:.1} MiB at the end, {:.1} MiB at most",
            mib(self.before.resident),
            mib(self.after.resident),
            mib(self.after.peak)
        )?;
        writeln!(f, "bcrypt: {} hashes computed", self.bcrypt_runs)?;
        if self.is_right() {
            return writeln!(f, "every answer was right");
        }
        writeln!(
            f,
            "WRONG: {} faults, the first of them:",
            self.tally.fault_count
        )?;
        for fault in &self.tally.faults {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}
