//! The text of a reminder: what is to be done by when, and where. Pure.
//!
//! Must never hold a secret: names are whatever people write, so what looks like a key in one is cut out.

use std::time::{Duration, SystemTime};

use askama::Template;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart};
use lettre::{Address, Message};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use crate::clock::Timestamp;
use crate::key::format::shown;
use crate::key::record::days_left;
use crate::key::{KeyRecord, TenantRecord};

const MOMENT: &[FormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
/// Characters of a name that a mail shows.
const NAME_LEN_MAX: usize = 120;
const TEST_SUBJECT: &str = "A test mail from Sidekey";
const TEST_TEXT: &str = "Hello,

somebody wanted to know whether mails of Sidekey arrive. This one did. Reminders
to replace the secret of an API key come the same way and from the same address.

This mail holds no secret. Nobody will ever ask you for one.
";

/// Whose address a mail goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    Key,
    Tenant,
}

/// What a reminder is about.
#[derive(Debug)]
pub struct About<'a> {
    pub key: &'a KeyRecord,
    pub tenant: Option<&'a TenantRecord>,
    pub contact: Contact,
    /// From when on the reminder was to be sent, by which it is known.
    pub step_at: Timestamp,
    pub now: Timestamp,
    /// The key's page, where people can reach the dashboard.
    pub link: Option<String>,
}

/// From whom it comes, and to whom it goes.
#[derive(Debug)]
pub struct Letterhead<'a> {
    pub from: &'a Mailbox,
    pub reply_to: Option<&'a Mailbox>,
    pub to: Address,
}

/// What both parts of a mail say.
struct Words {
    name: String,
    id: String,
    hint: String,
    environment: &'static str,
    tenant: String,
    due: String,
    when: String,
    rotation_days: u32,
    /// Whether that moment is over.
    is_overdue: bool,
    contact: &'static str,
    link: Option<String>,
}

#[derive(Template)]
#[template(path = "mail/rotation.txt")]
struct PlainText<'a> {
    words: &'a Words,
}

#[derive(Template)]
#[template(path = "mail/rotation.html")]
struct Html<'a> {
    words: &'a Words,
}

/// Tells programs that answer mails that this one wants no answer (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

fn date(moment: Timestamp) -> String {
    let nanos = i128::from(moment.as_millis()) * 1_000_000;
    let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    date.and_then(|date| date.format(MOMENT).ok())
        .unwrap_or_else(|| moment.to_string())
}

fn counted(days: i64) -> String {
    match days {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// When the secret is to be replaced, as the end of a sentence.
fn when(days: i64) -> String {
    match days {
        0 => "today".to_owned(),
        days if days > 0 => format!("within {}", counted(days)),
        days => format!("{} ago", counted(-days)),
    }
}

fn subject(words: &Words) -> String {
    let (name, id) = (&words.name, &words.id);
    if words.is_overdue {
        format!("API key \"{name}\" ({id}): its secret should have been replaced")
    } else {
        format!(
            "API key \"{name}\" ({id}): replace its secret {}",
            words.when
        )
    }
}

impl Words {
    fn of(about: &About<'_>) -> Self {
        let due_at = about.key.rotation_due_at();
        let days = days_left(due_at, about.now);
        let tenant_id = about.key.tenant_id.as_str();
        let display_name = about
            .tenant
            .and_then(|tenant| tenant.settings.display_name.as_deref());
        Words {
            name: shown(&about.key.name, NAME_LEN_MAX),
            id: about.key.id.to_string(),
            hint: about.key.hint.clone(),
            environment: about.key.environment.as_str(),
            tenant: match display_name {
                Some(name) => format!("{} ({tenant_id})", shown(name, NAME_LEN_MAX)),
                None => tenant_id.to_owned(),
            },
            due: date(due_at),
            when: when(days),
            rotation_days: about.key.rotation_days,
            is_overdue: days < 0,
            contact: match about.contact {
                Contact::Key => "the key",
                Contact::Tenant => "the key's tenant",
            },
            link: about.link.clone(),
        }
    }
}

/// What a mail is known by: the same where it is sent twice, so that mail programs show it once.
fn message_id(about: &About<'_>, from: &Mailbox) -> String {
    let (id, step) = (&about.key.id, about.step_at.as_millis());
    let generation = about.key.generation.0;
    format!(
        "<rotation.{id}.{generation}.{step}@{}>",
        from.email.domain()
    )
}

/// What all mails have.
fn begin(head: &Letterhead<'_>, id: String, subject: String, now: Timestamp) -> MessageBuilder {
    let sent_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    let builder = Message::builder()
        .from(head.from.clone())
        .to(Mailbox::new(None, head.to.clone()))
        .subject(subject)
        .date(SystemTime::UNIX_EPOCH + Duration::from_millis(sent_ms))
        .message_id(Some(id))
        .header(AutoSubmitted);
    match head.reply_to {
        Some(reply_to) => builder.reply_to(reply_to.clone()),
        None => builder,
    }
}

/// The mail.
pub fn compose(about: &About<'_>, head: &Letterhead<'_>) -> Result<Message, String> {
    let words = Words::of(about);
    let plain = PlainText { words: &words }.render();
    let html = Html { words: &words }.render();
    let (plain, html) = (
        plain.map_err(|error| error.to_string())?,
        html.map_err(|error| error.to_string())?,
    );
    begin(
        head,
        message_id(about, head.from),
        subject(&words),
        about.now,
    )
    .multipart(MultiPart::alternative_plain_html(plain, html))
    .map_err(|error| error.to_string())
}

/// A mail for who wants to see whether mails arrive.
pub fn compose_test(head: &Letterhead<'_>, now: Timestamp) -> Result<Message, String> {
    let id = format!(
        "<test.{:016x}@{}>",
        fastrand::u64(..),
        head.from.email.domain()
    );
    begin(head, id, TEST_SUBJECT.to_owned(), now)
        .header(ContentType::TEXT_PLAIN)
        .body(TEST_TEXT.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
