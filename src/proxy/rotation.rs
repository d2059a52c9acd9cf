//! What programs are told of the age of their secret, where that is asked for: how many days are left until
//! it is to be replaced, in a field of each answer.

use http::header::HeaderName;

use super::Context;
use crate::clock::Timestamp;
use crate::key::Generation;
use crate::key::record;
use crate::verify::KeyView;

pub const FIELD: HeaderName = HeaderName::from_static("sidekey-rotation-due-in-days");
/// It is told when no more days are left than these: before that nobody has to do anything.
const DAYS_MAX: i64 = 30;

/// The days that are left to the secret of this request, if that is to be told.
pub fn days_left(ctx: &Context) -> Option<i64> {
    let (view, proof) = (ctx.key.as_deref()?, ctx.caller.as_ref()?);
    let days = record::days_left(end(view, proof.generation)?, ctx.decided_at);
    (days <= DAYS_MAX).then_some(days)
}

/// When the secret of `generation` should be given up; one that was replaced ends with its grace period.
fn end(view: &KeyView, generation: Generation) -> Option<Timestamp> {
    if generation == view.authority.generation {
        return Some(view.rotation_due.begins_at());
    }
    let previous = view.authority.previous?;
    (previous.generation == generation).then_some(previous.valid_until)
}

/// Writes the field's line.
pub fn write(days: i64, lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"Sidekey-Rotation-Due-In-Days: ");
    lines.extend_from_slice(itoa::Buffer::new().format(days).as_bytes());
    lines.extend_from_slice(b"\r\n");
}
