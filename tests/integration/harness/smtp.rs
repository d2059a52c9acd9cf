//! A mail server for one test (`tests/smtp_server.py`, on aiosmtpd), which keeps what it takes.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::certificates::make_certificates;
use super::service::{Service, tool};

pub const USER: &str = "sidekey";
pub const PASSWORD: &str = "correct horse battery staple";

/// A mail server, and what came to it.
pub struct Smtp {
    directory: TempDir,
    tls: &'static str,
    options: Value,
    server: Option<Service>,
    port: u16,
    /// Bound to the port, and silent: nobody else gets it while the server is away, and who calls is refused.
    _place: TcpSocket,
}

/// A free port, and what holds it. The server binds it too: both say that it may be used again.
fn reserve() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(any).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub login: Option<String>,
    pub is_encrypted: bool,
    /// Which of the server's connections brought it, from 1.
    pub connection: u64,
    /// As it was sent, but for the breaks of long lines.
    pub text: String,
}

impl Mail {
    /// The value of a header field, in one line.
    pub fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().expect("a header");
        let head = head.replace("\r\n ", " ");
        let line = head.split("\r\n").find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let line = line.unwrap_or_else(|| panic!("no {name} in {head}"));
        line.to_owned()
    }
}

impl Smtp {
    /// `starttls`, `implicit` or `none`, with a login but for the last.
    pub fn start(tls: &'static str) -> Self {
        Self::start_with(tls, json!({}))
    }

    /// The same, with options of its own.
    pub fn start_with(tls: &'static str, more: Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        make_certificates(directory.path());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let user = if tls == "none" { "" } else { USER };
        let mut options = json!({
            "tls": tls, "certificate": file("leaf.pem"), "key": file("leaf.key"), "user": user,
            "password": PASSWORD, "mails": file("mails"),
        });
        for (name, value) in more.as_object().expect("an object") {
            options[name] = value.clone();
        }
        let (place, port) = reserve();
        options["port"] = port.into();
        let mut smtp = Smtp {
            directory,
            tls,
            options,
            server: None,
            port,
            _place: place,
        };
        smtp.launch();
        smtp
    }

    /// Starts the server (again), on the same port.
    pub fn launch(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp_server.py");
        let mut command = Command::new(tool("python"));
        command.arg(script).arg(self.options.to_string());
        let server = Service::start("the mail server", command, |line| {
            line.strip_prefix("listening on ")?.parse().ok()
        });
        self.server = Some(server);
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// The authority that its certificate is from.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// `[smtp]` for it.
    pub fn config(&self) -> String {
        let mut text = format!(
            "[smtp]\nhost = \"localhost\"\nport = {}\ntls = \"{}\"\nfrom = \"Sidekey <keys@example.com>\"\n",
            self.port, self.tls
        );
        if self.tls != "none" {
            let authority = self.authority().display().to_string();
            text.push_str(&format!(
                "ca_file = \"{authority}\"\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\n"
            ));
        }
        text
    }

    /// What it has taken, in that order.
    pub fn mails(&self) -> Vec<Mail> {
        let file = self.directory.path().join("mails");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                let mail: Value = serde_json::from_str(line).expect("a mail");
                let text = |name: &str| mail[name].as_str().map(str::to_owned);
                let whole = text("text").expect("text");
                Mail {
                    from: text("from").expect("a sender"),
                    to: serde_json::from_value(mail["to"].clone()).expect("recipients"),
                    login: text("login"),
                    is_encrypted: mail["is_encrypted"] == true,
                    connection: mail["connection"].as_u64().expect("a number"),
                    text: whole.replace("=\r\n", "").replace("=3D", "="),
                }
            })
            .collect()
    }
}

#[test]
fn the_port_of_a_stopped_server_stays_its_own() {
    let mut smtp = Smtp::start("none");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, smtp.port));
    smtp.stop();
    let refused = TcpStream::connect(address).map(drop);
    let refused = refused.expect_err("nobody is there").kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    let other = TcpSocket::new_v4().expect("a socket");
    let taken = other.bind(address).expect_err("it is taken").kind();
    assert_eq!(taken, std::io::ErrorKind::AddrInUse);
    smtp.launch();
    assert!(TcpStream::connect(address).is_ok());
}
