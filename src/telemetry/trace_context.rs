//! `traceparent`: which trace a request belongs to, and which span of it is its parent (W3C Trace
//! Context). Pure: no clock, no configuration. Ids are random, not secret.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const FIELD_LEN: usize = 55;
/// Where the fields' hyphens stand.
const HYPHENS: [usize; 3] = [2, 35, 52];
/// No version is called so.
const VERSION_INVALID: u8 = 0xff;
/// The one flag that is known here; others are not passed on, as the specification asks.
const SAMPLED: u8 = 1;

/// A trace: everything that came of one request somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// One span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    pub fn random() -> Self {
        TraceId(NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN))
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    pub fn random() -> Self {
        SpanId(NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN))
    }

    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The span that the request was sent from.
    pub span_id: SpanId,
    /// Whether whoever sent it records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// What a request's header says; `None` where it says nothing, nothing sound, or several things.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // Nearly every request has none: one look tells.
        let first = headers.get(TRACEPARENT)?;
        let is_alone = headers.get_all(TRACEPARENT).iter().nth(1).is_none();
        is_alone.then(|| Self::parse(first.as_bytes())).flatten()
    }

    /// Reads a field's value. What later versions add is behind what is known here.
    pub fn parse(field: &[u8]) -> Option<Self> {
        if field.len() < FIELD_LEN || HYPHENS.iter().any(|at| field[*at] != b'-') {
            return None;
        }
        let version = u8::try_from(hexadecimal(&field[..2])?).ok()?;
        let is_whole = match version {
            VERSION_INVALID => false,
            0 => field.len() == FIELD_LEN,
            _ => field.get(FIELD_LEN).is_none_or(|next| *next == b'-'),
        };
        if !is_whole {
            return None;
        }
        let span_id = u64::try_from(hexadecimal(&field[36..52])?).ok()?;
        let flags = u8::try_from(hexadecimal(&field[53..55])?).ok()?;
        Some(TraceContext {
            trace_id: TraceId(NonZeroU128::new(hexadecimal(&field[3..35])?)?),
            span_id: SpanId(NonZeroU64::new(span_id)?),
            sampled: flags & SAMPLED != 0,
        })
    }

    /// The field's value, in the version that is known here. One allocation.
    pub fn to_field(self) -> Option<HeaderValue> {
        let mut text = [0u8; FIELD_LEN];
        text[..2].copy_from_slice(b"00");
        for at in HYPHENS {
            text[at] = b'-';
        }
        write_hexadecimal(&mut text[3..35], &self.trace_id.to_bytes());
        write_hexadecimal(&mut text[36..52], &self.span_id.to_bytes());
        write_hexadecimal(&mut text[53..55], &[u8::from(self.sampled)]);
        HeaderValue::from_bytes(&text).ok()
    }
}

/// The number that `digits`, at most 32 in lower case, write.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

/// Writes two digits a byte.
fn write_hexadecimal(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn a_sound_field_is_read() {
        let read = parse(SOUND).unwrap();
        assert_eq!(
            read.trace_id.to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(read.span_id.to_string(), "00f067aa0ba902b7");
        assert!(read.sampled);
        assert_eq!(read.to_field().unwrap(), SOUND);
    }

    #[test]
    fn flags_but_one_mean_nothing() {
        for (flags, sampled) in [
            ("00", false),
            ("01", true),
            ("02", false),
            ("03", true),
            ("fe", false),
            ("ff", true),
        ] {
            let text = format!("{}{flags}", &SOUND[..53]);
            let read = parse(&text).unwrap();
            assert_eq!(read.sampled, sampled, "{flags}");
            let written = read.to_field().unwrap();
            let expected = if sampled { "01" } else { "00" };
            assert_eq!(&written.as_bytes()[53..], expected.as_bytes());
        }
    }

    #[test]
    fn later_versions_may_say_more() {
        for (text, is_read) in [
            (SOUND.replacen("00", "01", 1), true),
            (SOUND.replacen("00", "cc", 1), true),
            (
                format!("{}-what-is-new", SOUND.replacen("00", "cc", 1)),
                true,
            ),
            (format!("{}-", SOUND.replacen("00", "cc", 1)), true),
            (format!("{}what", SOUND.replacen("00", "cc", 1)), false),
            (SOUND.replacen("00", "ff", 1), false),
            (format!("{SOUND}-what-is-new"), false),
            (format!("{SOUND}-"), false),
            (format!("{SOUND}0"), false),
        ] {
            assert_eq!(parse(&text).is_some(), is_read, "{text}");
        }
    }

    #[test]
    fn what_is_not_sound() {
        for text in [
            "",
            "00",
            &SOUND[..54],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bz-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7 01",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        assert_eq!(TraceContext::of(&headers), parse(SOUND));
        headers.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        assert_eq!(TraceContext::of(&headers), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace: u128, span: u64, sampled: bool) {
            let (Some(trace), Some(span)) = (NonZeroU128::new(trace), NonZeroU64::new(span)) else {
                return Ok(());
            };
            let context = TraceContext { trace_id: TraceId(trace), span_id: SpanId(span), sampled };
            let field = context.to_field().unwrap();
            prop_assert_eq!(field.len(), FIELD_LEN);
            prop_assert_eq!(TraceContext::parse(field.as_bytes()), Some(context));
            let text = field.to_str().unwrap();
            prop_assert_eq!(&text[3..35], context.trace_id.to_string());
            prop_assert_eq!(&text[36..52], context.span_id.to_string());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = TraceContext::parse(&bytes);
        }

        #[test]
        fn only_the_form_is_read(text in "[0-9a-fA-Fgx]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-[a-z]{0,3})?") {
            let parts: Vec<&str> = text.split('-').collect();
            let digits = |part: &str, len: usize| {
                part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            };
            let zero = |part: &str| part.bytes().all(|b| b == b'0');
            let is_sound = digits(parts[0], 2)
                && digits(parts[1], 32) && !zero(parts[1])
                && digits(parts[2], 16) && !zero(parts[2])
                && digits(parts[3], 2)
                && parts[0] != "ff"
                && (parts[0] != "00" || parts.len() == 4);
            prop_assert_eq!(parse(&text).is_some(), is_sound);
        }

        /// One wrong character anywhere is one too many.
        #[test]
        fn a_damaged_field_is_not_read(at in 0..FIELD_LEN, with in "[A-Zg-z .,;_\"]") {
            let mut text = SOUND.to_owned();
            text.replace_range(at..=at, &with);
            prop_assert_eq!(parse(&text), None);
        }
    }
}
