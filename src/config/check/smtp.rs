//! `[smtp]`: the server that takes mail.

use std::net::IpAddr;
use std::time::Duration;

use lettre::message::Mailbox;

use super::Checker;
use crate::config::raw;
use crate::config::settings::{MailLogin, MailTls, SmtpSettings};
use crate::reminders::send;

const TIMEOUT_SECONDS_MAX: u64 = 120;
const HOST_LEN_MAX: usize = 253;

impl Checker<'_> {
    /// `None` where there is no server, or none that can be used.
    pub(super) fn smtp(&mut self, raw: &raw::Smtp) -> Option<SmtpSettings> {
        self.number(
            "smtp.timeout_seconds",
            raw.timeout_seconds,
            1,
            TIMEOUT_SECONDS_MAX,
        );
        let tls = self.choice(
            "smtp.tls",
            &raw.tls,
            &[
                ("starttls", MailTls::StartTls),
                ("implicit", MailTls::Implicit),
                ("none", MailTls::Off),
            ],
        );
        if raw.host.is_empty() {
            if !raw.from.is_empty() || !raw.username.is_empty() {
                self.report("smtp.host", "is missing; name the server that takes mail");
            }
            return None;
        }
        self.mail_host(&raw.host);
        if raw.port == Some(0) {
            self.report("smtp.port", "is 0; it must be 1 to 65535");
        }
        let from = self.mailbox("smtp.from", &raw.from);
        let reply_to = match raw.reply_to.as_str() {
            "" => None,
            text => Some(self.mailbox("smtp.reply_to", text)?),
        };
        let login = self.mail_login(raw);
        let (tls, from) = (tls?, from?);
        self.mail_encryption(raw, tls);
        let settings = SmtpSettings {
            host: raw.host.clone(),
            port: raw.port.unwrap_or(match tls {
                MailTls::StartTls => 587,
                MailTls::Implicit => 465,
                MailTls::Off => 25,
            }),
            tls,
            login: login?,
            from,
            reply_to,
            ca_file: raw.ca_file.clone().map(Into::into),
            timeout: Duration::from_secs(raw.timeout_seconds.clamp(1, TIMEOUT_SECONDS_MAX)),
        };
        self.pem("smtp.ca_file", raw.ca_file.as_deref())?;
        if let Err(detail) = send::Mailer::new(&settings) {
            self.report("smtp.ca_file", format!("can't be used: {detail}"));
        }
        Some(settings)
    }

    fn mail_host(&mut self, host: &str) {
        let is_name = host.len() <= HOST_LEN_MAX
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !is_name && host.parse::<IpAddr>().is_err() {
            self.report(
                "smtp.host",
                format!("\"{host}\" is neither a name such as mail.example.com nor an address; the port stands in smtp.port"),
            );
        }
    }

    fn mailbox(&mut self, path: &str, text: &str) -> Option<Mailbox> {
        if text.is_empty() {
            self.report(path, "is missing; such as Sidekey <keys@example.com>");
            return None;
        }
        let mailbox = text.parse().ok();
        if mailbox.is_none() {
            self.report(
                path,
                format!("\"{text}\" is not an address such as keys@example.com or Sidekey <keys@example.com>"),
            );
        }
        mailbox
    }

    /// `None` where there should be one and is none.
    fn mail_login(&mut self, raw: &raw::Smtp) -> Option<Option<MailLogin>> {
        let (text, file) = (raw.password.as_deref(), raw.password_file.as_deref());
        if raw.username.is_empty() {
            if text.is_some() || file.is_some() {
                self.report("smtp.username", "is missing; the password is there");
            }
            return Some(None);
        }
        let password = self.source("smtp.password", text, file)?;
        Some(Some(MailLogin {
            username: raw.username.clone(),
            password,
        }))
    }

    /// Without TLS whoever listens on the way reads mails, and would read the password.
    fn mail_encryption(&mut self, raw: &raw::Smtp, tls: MailTls) {
        let host = raw.host.as_str();
        let is_local =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if tls != MailTls::Off {
            return;
        }
        if raw.ca_file.is_some() {
            self.report("smtp.ca_file", "is not used with smtp.tls = \"none\"");
        }
        if is_local {
            return;
        }
        if !raw.username.is_empty() {
            self.report(
                "smtp.tls",
                "is \"none\": the password would not be encrypted; use \"starttls\" or \"implicit\"",
            );
        } else if !raw.allow_unencrypted {
            self.report(
                "smtp.tls",
                "is \"none\", which is for 127.0.0.1, ::1 and localhost; use \"starttls\" or \"implicit\", or say smtp.allow_unencrypted = true",
            );
        }
    }
}
