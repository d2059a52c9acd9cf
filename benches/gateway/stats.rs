//! Order statistics. Means hide what a scheduler does to a round, so there are none here.

use std::time::Duration;

/// The middle value, or the mean of the two in the middle; NaN where there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest and the largest value.
pub fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
            (low.min(value), high.max(value))
        })
}

/// A percentile by nearest rank, in microseconds; NaN where there are no samples.
pub fn percentile_us(samples: &mut [Duration], percent: usize) -> f64 {
    samples.sort_unstable();
    let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
    samples
        .get(rank)
        .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
}
