//! The way to the mail server: one connection for the mails of a pass, each mail within its time.
//!
//! Kinds of failure are kept apart, because something else follows from each: the server does not want this
//! mail, now or ever, or it takes none at all, or it has the mail and nobody knows what becomes of it. So the steps of a mail are taken one by one here: a
//! refused login and a refused recipient both have a code above 500. Where a relay tells with the recipient
//! that it does not take mails from us, that is no bounce: a mistake in its settings must not cost everybody
//! a reminder.

use std::error::Error as _;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::{Error, response::Severity};
use lettre::{Address, Message};
use secrecy::ExposeSecret;

use super::mail::Letterhead;
use crate::config::settings::{MailLogin, MailTls, SmtpSettings};
use crate::key::format::shown;

/// How long a server may think about a mail that it has: it may look for viruses in it. Together with the time
/// for all that comes before (`smtp.timeout_seconds`), less than a claim lasts.
const TAKING_TIMEOUT: Duration = Duration::from_secs(300);
/// Mails that one connection carries: servers limit them.
const MAILS_A_CONNECTION: usize = 50;
/// Of what a server says, so much is kept.
const REPLY_LEN_MAX: usize = 200;

/// The reply of a server that closes the connection.
const CLOSING: u16 = 421;
/// Replies that ask for a login, or for encryption before it (RFC 4954).
const CODES_OF_US: [u16; 4] = [454, 530, 535, 538];
/// How extended codes begin that refuse something for good by a rule, such as "relay access denied".
const POLICY: &str = "5.7.";

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// The server refuses this mail for good.
    Refused(String),
    /// It does not take this mail now.
    Later(String),
    /// It can't be reached, or takes no mail from us.
    Server(String),
    /// It had the mail, and did not say whether it takes it.
    Unknown(String),
}

impl Undelivered {
    /// What the server said, or what became of the connection.
    pub fn reason(&self) -> &str {
        match self {
            Undelivered::Refused(reason)
            | Undelivered::Later(reason)
            | Undelivered::Server(reason)
            | Undelivered::Unknown(reason) => reason,
        }
    }
}

/// What is needed to reach the server.
pub struct Mailer {
    settings: SmtpSettings,
    /// With encryption.
    tls: Option<TlsParameters>,
    hello: ClientId,
}

impl Mailer {
    /// Reads the certificates that are trusted.
    pub fn new(settings: &SmtpSettings) -> Result<Self, String> {
        let tls = match settings.tls {
            MailTls::Off => None,
            MailTls::StartTls | MailTls::Implicit => Some(trust(settings)?),
        };
        Ok(Mailer {
            settings: settings.clone(),
            tls,
            hello: hello(settings),
        })
    }

    /// From whom mails come, with `to` as the one whom they go to.
    pub fn letterhead(&self, to: Address) -> Letterhead<'_> {
        Letterhead {
            from: &self.settings.from,
            reply_to: self.settings.reply_to.as_ref(),
            to,
        }
    }

    /// For the mails of a pass. Nothing is opened before the first.
    pub fn session(&self) -> Session<'_> {
        Session {
            mailer: self,
            open: None,
            has_taken: false,
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Undelivered> {
        let SmtpSettings { host, port, .. } = &self.settings;
        let server = (host.as_str(), *port);
        let implicit = match self.settings.tls {
            MailTls::Implicit => self.tls.clone(),
            MailTls::StartTls | MailTls::Off => None,
        };
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, implicit, None)
                .await
                .map_err(|error| of_server("no connection", &error))?;
        if let (MailTls::StartTls, Some(tls)) = (self.settings.tls, &self.tls) {
            let started = connection.starttls(tls.clone(), &self.hello).await;
            started.map_err(|error| of_server("no encryption", &error))?;
        }
        if let Some(login) = &self.settings.login {
            let credentials = credentials(login)?;
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let known = connection.auth(&mechanisms, &credentials).await;
            known.map_err(|error| of_server("the login is refused", &error))?;
        }
        Ok(connection)
    }
}

fn trust(settings: &SmtpSettings) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(file) = &settings.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        let authorities = Certificate::from_pem(&pem).map_err(|error| error.to_string())?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(authorities);
    }
    builder.build().map_err(|error| error.to_string())
}

/// What we call ourselves: this machine where its name is a whole one, and otherwise whom mail comes from.
fn hello(settings: &SmtpSettings) -> ClientId {
    let machine = rustix::system::uname();
    let name = machine.nodename().to_str().unwrap_or_default();
    let is_whole = name.contains('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let domain = if is_whole {
        name
    } else {
        settings.from.email.domain()
    };
    ClientId::Domain(domain.to_owned())
}

/// The password may have been replaced since the last time.
fn credentials(login: &MailLogin) -> Result<Credentials, Undelivered> {
    let password = login.password.read().map_err(Undelivered::Server)?;
    Ok(Credentials::new(
        login.username.clone(),
        password.expose_secret().to_owned(),
    ))
}

/// What is told of a failure: a line of some length, without what looks like a key.
fn told(what: &str, error: &Error) -> String {
    shown(&format!("{what}: {error}"), REPLY_LEN_MAX)
}

fn of_server(what: &str, error: &Error) -> Undelivered {
    Undelivered::Server(told(what, error))
}

/// What a failure says that comes after the server knows whom the mail is for. Where no mail of ours was taken
/// yet, a refusal of what we may do is one of us; otherwise it is one of this mail, which others must not wait
/// for.
fn of_mail(what: &str, error: &Error, has_taken: bool) -> Undelivered {
    let told = told(what, error);
    let Some(code) = error.status() else {
        return Undelivered::Server(told);
    };
    if u16::from(code) == CLOSING {
        return Undelivered::Server(told);
    }
    let text = error.source().map(ToString::to_string);
    match is_of_us(u16::from(code), text.as_deref().unwrap_or_default()) {
        true if has_taken => Undelivered::Later(told),
        true => Undelivered::Server(told),
        false if code.severity == Severity::PermanentNegativeCompletion => {
            Undelivered::Refused(told)
        }
        false => Undelivered::Later(told),
    }
}

/// Whether a reply is about what we may do, and not about a mailbox: a login or encryption is missing, or a
/// relay does not take mails from us. By the code, or by the extended one that the text begins with (RFC 3463).
fn is_of_us(code: u16, text: &str) -> bool {
    CODES_OF_US.contains(&code) || text.trim_start().starts_with(POLICY)
}

/// A connection that is open.
struct Open {
    connection: AsyncSmtpConnection,
    carried: usize,
}

/// The mails of a pass.
pub struct Session<'m> {
    mailer: &'m Mailer,
    open: Option<Open>,
    /// One of them was.
    has_taken: bool,
}

impl Session<'_> {
    /// Hands one mail over.
    pub async fn deliver(&mut self, to: &Address, mail: &Message) -> Result<(), Undelivered> {
        let limit = self.mailer.settings.timeout;
        let offer = tokio::time::timeout(limit, self.offer_once_more(to));
        let Ok(offered) = offer.await else {
            let detail = format!("no answer within {} s", limit.as_secs());
            return Err(Undelivered::Server(detail));
        };
        // After a failure the connection is given up with what was begun on it.
        let mut open = offered?;
        let content = mail.formatted();
        let taking = open.connection.message(&content);
        match tokio::time::timeout(TAKING_TIMEOUT, taking).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.status().is_some() => {
                return Err(of_mail("the mail is refused", &error, self.has_taken));
            }
            Ok(Err(error)) => {
                return Err(Undelivered::Unknown(told("the mail has no answer", &error)));
            }
            Err(_) => {
                let seconds = TAKING_TIMEOUT.as_secs();
                let detail = format!("the mail has no answer within {seconds} s");
                return Err(Undelivered::Unknown(detail));
            }
        }
        self.has_taken = true;
        open.carried += 1;
        if open.carried < MAILS_A_CONNECTION {
            self.open = Some(open);
        } else {
            let _ = tokio::time::timeout(limit, open.connection.quit()).await;
        }
        Ok(())
    }

    /// A server may have closed a connection that has carried mails: that is no outage. Nothing of the mail
    /// itself was sent then.
    async fn offer_once_more(&mut self, to: &Address) -> Result<Open, Undelivered> {
        let was_open = self.open.is_some();
        match self.offer(to).await {
            Err(Undelivered::Server(_)) if was_open => self.offer(to).await,
            result => result,
        }
    }

    /// A connection on which the server waits for a mail to that address.
    async fn offer(&mut self, to: &Address) -> Result<Open, Undelivered> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                connection: self.mailer.connect().await?,
                carried: 0,
            },
        };
        let from = &self.mailer.settings.from.email;
        announce(&mut open.connection, from, to, self.has_taken).await?;
        Ok(open)
    }

    /// Takes leave, where a connection is open.
    pub async fn close(mut self) {
        if let Some(mut open) = self.open.take() {
            let limit = self.mailer.settings.timeout;
            let _ = tokio::time::timeout(limit, open.connection.quit()).await;
        }
    }
}

/// The steps before a mail.
async fn announce(
    connection: &mut AsyncSmtpConnection,
    from: &Address,
    to: &Address,
    has_taken: bool,
) -> Result<(), Undelivered> {
    let is_plain = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    let mut options = Vec::new();
    if !is_plain(from) || !is_plain(to) {
        if !connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight)
        {
            let detail = "the mail server does not know addresses outside of ASCII";
            return Err(Undelivered::Refused(detail.to_owned()));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    let sender = Mail::new(Some(from.clone()), options);
    let taken = connection.command(sender).await;
    // No mail of ours is taken as long as it is so.
    taken.map_err(|error| of_server("the sender is refused", &error))?;
    let recipient = Rcpt::new(to.clone(), Vec::new());
    let taken = connection.command(recipient).await;
    taken.map_err(|error| of_mail("the recipient is refused", &error, has_taken))?;
    let taken = connection.command(Data).await;
    taken.map_err(|error| of_mail("the mail is refused", &error, has_taken))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_us_is_told_from_one_of_a_mailbox() {
        for (code, text, expected) in [
            (550, "5.1.1 there is no such mailbox", false),
            (552, "5.2.2 it is full", false),
            (550, "not here (5.7.1)", false),
            (550, "", false),
            (451, "4.7.1 try again later", false),
            (554, "5.7.1 <a@b.example>: Relay access denied", true),
            (550, "5.7.1 Unable to relay", true),
            (530, "Authentication required", true),
            (535, "", true),
            (538, "Encryption required", true),
            (454, "4.7.0 Temporary authentication failure", true),
        ] {
            assert_eq!(is_of_us(code, text), expected, "{code} {text}");
        }
    }
}
