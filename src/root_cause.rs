//! What lies at the bottom of a library's error: its own words often name an address and no reason.

use std::error::Error;

/// The innermost cause, which is the system's or the TLS library's.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
