//! Pages about all keys.

pub mod list;
