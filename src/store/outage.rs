//! Which of a database's own errors say that it is away, too slow or can't write for now, and nothing about
//! the rows that were asked for.

use sqlx::error::DatabaseError;

/// The length of every code of PostgreSQL (an SQLSTATE); those of SQLite are shorter.
const SQLSTATE_LEN: usize = 5;

/// What PostgreSQL's codes begin with: broken connections (08), a session that waited for too long (25P03,
/// 25P04), a server that only reads (25006: a standby), transactions that made room for others (40), no
/// space, memory or connections (53), a lock that was not to be had in time (55P03), a server that ends, or
/// ended this (57), and its disk (58).
const SQLSTATES: [&str; 9] = [
    "08", "25006", "25P03", "25P04", "40", "53", "55P03", "57", "58",
];

/// SQLite's primary codes: BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL (locks
/// that were not to be had).
const SQLITE_CODES: [u32; 9] = [5, 6, 7, 8, 9, 10, 13, 14, 15];
/// The primary code is in the lowest byte of an extended one.
const SQLITE_PRIMARY: u32 = 0xff;

/// Whether `error` says nothing but that the database is away.
pub(super) fn is_outage(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| is_code_of_outage(&code))
}

fn is_code_of_outage(code: &str) -> bool {
    if code.len() == SQLSTATE_LEN {
        return SQLSTATES.iter().any(|state| code.starts_with(state));
    }
    code.parse::<u32>()
        .is_ok_and(|code| SQLITE_CODES.contains(&(code & SQLITE_PRIMARY)))
}

#[cfg(test)]
mod tests {
    use super::is_code_of_outage;

    #[test]
    fn outages() {
        let postgres = [
            "57P01", "57P02", "57P03", "57014", "55P03", "40001", "40P01", "25006", "53100",
            "53300", "08006", "58030",
        ];
        // BUSY, BUSY_SNAPSHOT, LOCKED_SHAREDCACHE, READONLY_DBMOVED, IOERR_FSYNC, FULL, CANTOPEN.
        let sqlite = ["5", "517", "262", "1032", "1034", "13", "14"];
        for code in postgres.iter().chain(&sqlite) {
            assert!(is_code_of_outage(code), "{code}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_chain() {
        // A constraint, a missing table, column or right, a trigger's own words, damaged pages.
        let postgres = [
            "23505", "23514", "42P01", "42703", "42501", "P0001", "XX001",
        ];
        // ERROR (no such table), CORRUPT, CONSTRAINT_TRIGGER, CONSTRAINT_PRIMARYKEY, NOTADB.
        let sqlite = ["1", "11", "1811", "1555", "26"];
        for code in postgres.iter().chain(&sqlite).chain(&["", "none"]) {
            assert!(!is_code_of_outage(code), "{code}");
        }
    }
}
