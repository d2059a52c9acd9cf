//! The program as it is in its container: no root, no right of root's, and nothing that can be written to
//! but `data/`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::run::{Ended, run, run_command, run_health};
use crate::harness::service::Service;
use crate::harness::sidekey::{config, program};
use crate::harness::upstream::nobody;

/// Makes everything read-only but `$DATA`, as the container's user if this is root, and becomes the
/// program. It is bound to a path that this user can reach, wherever the repository is.
const IN_A_BOX: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$PROGRAM" "$FOLDER/sidekey"
mount --bind "$DATA" "$DATA"
while read -r _ place kind _; do
    case $kind in proc | sysfs | cgroup*) continue ;; esac
    case $place in "$DATA" | /proc/* | /sys/* | /dev/pts) continue ;; esac
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done </proc/self/mounts
cd "$FOLDER"
if touch "$FOLDER/x" 2>/dev/null || touch /tmp/x 2>/dev/null; then
    echo "something else can be written to" >&2
    exit 1
fi
exec setpriv $AS --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"#;

/// How this machine lets a test have mounts of its own.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// As root, with all of root's rights: the program gets the container's user.
    Root,
    /// As root of a user namespace of its own, whoever this is outside; there is no other user in it.
    Namespace,
}

impl Way {
    const ALL: [Way; 2] = [Way::Root, Way::Namespace];

    /// Root may be without the rights to this: in a container, say.
    fn found() -> Self {
        let works = |way: &Way| {
            let mut command = way.unshare();
            command.args(["mount", "--make-rprivate", "/"]);
            run_command(command).code == Some(0)
        };
        Way::ALL.into_iter().find(works).expect(
            "this test needs mounts of its own: run it as root with CAP_SYS_ADMIN, or allow user namespaces",
        )
    }

    fn unshare(self) -> Command {
        let mut command = Command::new("unshare");
        match self {
            Way::Root => command.arg("--mount"),
            Way::Namespace => command.args(["--user", "--map-root-user", "--mount"]),
        };
        command
    }

    /// What makes the program the container's user.
    fn user(self) -> &'static str {
        match self {
            Way::Root => "--reuid=65532 --regid=65532 --clear-groups",
            Way::Namespace => "",
        }
    }
}

/// `program` in `folder`, boxed.
fn boxed(way: Way, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = way.unshare();
    command
        .args(["sh", "-c", IN_A_BOX, "sh"])
        .args(arguments)
        .env("PROGRAM", program())
        .env("FOLDER", folder)
        .env("DATA", folder.join("data"))
        .envs(of_the_image(folder))
        .env("AS", way.user());
    command
}

/// The environment that the image sets, with the places of `folder`.
fn of_the_image(folder: &Path) -> Vec<(String, String)> {
    let dockerfile = super::text("Dockerfile");
    let lines = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "));
    let variables = lines.map(|line| {
        let (name, value) = line.split_once('=').expect("NAME=VALUE");
        let here = value.replace("/var/lib/sidekey", &folder.display().to_string());
        (name.to_owned(), here)
    });
    variables.collect()
}

/// A folder that the container's user can read, with `data/`, which is its own.
fn folder(way: Way) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(folder.join("data")).unwrap();
    std::fs::write(folder.join("sidekey"), "").unwrap();
    if matches!(way, Way::Root) {
        std::os::unix::fs::chown(folder.join("data"), Some(65532), Some(65532)).unwrap();
    }
    std::fs::set_permissions(folder.join("data"), Permissions::from_mode(0o700)).unwrap();
    directory
}

/// The program that serves in the box, on free ports.
async fn serve(way: Way, folder: &Path) -> Command {
    let file = folder.join("sidekey.toml");
    std::fs::write(&file, config(nobody(), "")).unwrap();
    let program = folder.join("sidekey").display().to_string();
    let file = file.display().to_string();
    let mut command = boxed(way, folder, &[&program, "serve", "--config", &file]);
    command
        .env("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0")
        .env("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_no_root_and_writes_to_its_data_alone() {
    let way = Way::found();
    let directory = folder(way);
    let folder = directory.path();
    let mut command = serve(way, folder).await;
    command
        .env("SIDEKEY__BCRYPT__COST", "4")
        .env("SIDEKEY__LOG__FORMAT", "json");
    let sidekey = Service::start("sidekey", command, |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = line.to_string();
        let (_, rest) = text.split_once("\"admin\":\"")?;
        rest.split('"').next()?.parse().ok()
    });
    let address = sidekey.address.to_string();
    let ready = run_health(folder, &["--ready", "--address", &address], &[]);
    assert_eq!(ready.code, Some(0), "{ready:?}");
    let url = format!("http://{address}");
    let key_file = folder.join("data/admin.key").display().to_string();
    let created = [
        "keys",
        "create",
        "--name",
        "one",
        "--tenant",
        "acme",
        "--quiet",
        "--admin-url",
        &url,
        "--admin-key-file",
        &key_file,
    ];
    let created: Ended = run(folder, &created, &[]);
    assert_eq!(created.code, Some(0), "{created:?}");
    assert!(created.stdout.starts_with("sk_live_"), "{created:?}");
}

/// The box is one: where the data is anywhere else, the program says so and ends.
#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_it_can_write_nothing() {
    let way = Way::found();
    let directory = folder(way);
    let folder = directory.path();
    let mut command = serve(way, folder).await;
    command.env("SIDEKEY__STORE__URL", "sqlite://elsewhere/sidekey.db");
    let ended = run_command(command);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("elsewhere"), "{ended:?}");
}
