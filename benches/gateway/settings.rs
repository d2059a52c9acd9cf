//! What the environment asks of a run, checked, with every default written down.

use std::env;
use std::time::Duration;

/// Rounds of every comparison. An odd number, so the median is a round that was measured. Many
/// short rounds beat a few long ones: neighbours on the machine come and go within seconds.
const ROUNDS_DEFAULT: usize = 11;
const ROUNDS_MAX: usize = 101;
/// Length of one measurement in seconds.
const SECONDS_DEFAULT: u64 = 2;
const SECONDS_MAX: u64 = 600;
/// Keys in the memory case: the figure that the target names.
const MEMORY_KEYS_DEFAULT: usize = 100_000;
const MEMORY_KEYS_MAX: usize = 1_000_000;
/// Keys in one round of the cold flood.
const COLD_KEYS_DEFAULT: usize = 300;
const COLD_KEYS_MAX: usize = 2_000;

/// One thing that a run can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The bare proxy against itself: what differs here is noise.
    Noise,
    /// The bare proxy against one without Pingora's default modules. Not part of a default run.
    Lean,
    /// The bare proxy against Sidekey with everything on and a warm key.
    Warm,
    /// Keys that nobody minted.
    Forged,
    /// Keys of any look that nobody imported, where others were.
    Unknown,
    /// Warm clients while minted keys arrive that were never seen before.
    Cold,
    /// Resident memory of many warm keys.
    Memory,
    /// The bare proxy against Sidekey with limits in Redis, taken in advance.
    Leased,
    /// nginx with Lua against Sidekey with limits in Redis, asked for each request.
    Unleased,
    /// The creation of a key, beside one bcrypt hash.
    Create,
}

impl Case {
    const ALL: [Self; 10] = [
        Self::Noise,
        Self::Lean,
        Self::Warm,
        Self::Forged,
        Self::Unknown,
        Self::Cold,
        Self::Memory,
        Self::Leased,
        Self::Unleased,
        Self::Create,
    ];
    const DEFAULT: [Self; 9] = [
        Self::Noise,
        Self::Warm,
        Self::Forged,
        Self::Unknown,
        Self::Cold,
        Self::Memory,
        Self::Leased,
        Self::Unleased,
        Self::Create,
    ];

    /// The case's name in `SIDEKEY_BENCH_CASES` and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Lean => "lean",
            Self::Warm => "warm",
            Self::Forged => "forged",
            Self::Unknown => "unknown",
            Self::Cold => "cold",
            Self::Memory => "memory",
            Self::Leased => "leased",
            Self::Unleased => "unleased",
            Self::Create => "create",
        }
    }

    fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|case| case.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("SIDEKEY_BENCH_CASES: there is no case {name:?}; there are {known}")
            })
    }
}

/// A run's settings.
pub struct Settings {
    /// Cases in the order in which they run.
    pub cases: Vec<Case>,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// How long one side is measured in one round.
    pub measure_for: Duration,
    /// Keys of the memory case.
    pub memory_keys: usize,
    /// Keys of one cold flood.
    pub cold_keys: usize,
}

impl Settings {
    /// Reads `SIDEKEY_BENCH_CASES`, `_ROUNDS`, `_SECONDS`, `_MEMORY_KEYS` and `_COLD_KEYS`.
    pub fn from_environment() -> Result<Self, String> {
        let seconds = number("SIDEKEY_BENCH_SECONDS", SECONDS_DEFAULT, SECONDS_MAX)?;
        Ok(Self {
            cases: cases()?,
            rounds: number("SIDEKEY_BENCH_ROUNDS", ROUNDS_DEFAULT, ROUNDS_MAX)?,
            measure_for: Duration::from_secs(seconds),
            memory_keys: number(
                "SIDEKEY_BENCH_MEMORY_KEYS",
                MEMORY_KEYS_DEFAULT,
                MEMORY_KEYS_MAX,
            )?,
            cold_keys: number("SIDEKEY_BENCH_COLD_KEYS", COLD_KEYS_DEFAULT, COLD_KEYS_MAX)?,
        })
    }
}

fn cases() -> Result<Vec<Case>, String> {
    match env::var("SIDEKEY_BENCH_CASES") {
        Ok(names) if !names.trim().is_empty() => names
            .split(',')
            .map(|name| Case::parse(name.trim()))
            .collect(),
        _ => Ok(Case::DEFAULT.to_vec()),
    }
}

fn number<N>(name: &str, default: N, most: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + From<u8> + std::fmt::Display,
{
    let Ok(text) = env::var(name) else {
        return Ok(default);
    };
    match text.trim().parse::<N>() {
        Ok(value) if value >= N::from(1) && value <= most => Ok(value),
        _ => Err(format!(
            "{name}={text} is not a whole number from 1 to {most}"
        )),
    }
}
