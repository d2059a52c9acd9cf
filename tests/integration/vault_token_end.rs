//! The gauge of Vault's token tells of its end where nothing can renew or replace it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::openbao::{AppRole, OpenBao};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::Upstream;

const TTL: &str = "sidekey_vault_token_ttl_seconds";

/// An instance that logs in with a secret id from a file.
struct World {
    sidekey: Sidekey,
    bao: OpenBao,
    role: AppRole,
    file: tempfile::NamedTempFile,
}

impl World {
    /// Its tokens are as `fields` say.
    async fn start(fields: Value) -> Self {
        let (upstream, bao) = (Upstream::start().await, OpenBao::start().await);
        let role = bao.app_role(fields, None).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &role.secret_id).unwrap();
        let lines = format!(
            "auth = \"approle\"\nrole_id = \"{}\"\nsecret_id_file = \"{}\"\n",
            role.role_id,
            file.path().display()
        );
        let sidekey = Sidekey::start(&config(upstream.address, &bao.config(&lines))).await;
        assert!(sidekey.metric(TTL).await > 0.0);
        World {
            sidekey,
            bao,
            role,
            file,
        }
    }

    /// No login works from now on.
    async fn destroy_secret_id(&self) {
        let path = "auth/approle/role/sidekey/secret-id/destroy";
        let old = json!({"secret_id": self.role.secret_id});
        self.bao.must(None, path, old).await;
    }

    async fn revoke_tokens(&self) {
        let path = "sys/leases/revoke-prefix/auth/approle/login";
        let (status, _) = self
            .bao
            .ask(Method::PUT, path, Some(&json!({"sync": true})))
            .await;
        assert!((200..300).contains(&status), "{status}");
    }

    async fn expect_end(&self) {
        eventually("the end of the token is shown", || async {
            self.sidekey.metric(TTL).await == -1.0
        })
        .await;
        assert!(!self.sidekey.output().contains(&self.role.secret_id));
    }

    /// A new secret id is all that it takes.
    async fn expect_recovery(&self) {
        std::fs::write(self.file.path(), self.bao.secret_id(None).await).unwrap();
        eventually("a new token is shown", || async {
            self.sidekey.metric(TTL).await > 0.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_whose_login_fails_shows() {
    let world = World::start(json!({"token_ttl": "1h"})).await;
    world.destroy_secret_id().await;
    world.revoke_tokens().await;
    world.expect_end().await;
    // It is -1 for as long as it lasts, so that an alert with a `for` comes.
    let logins = "sidekey_vault_login_errors_total";
    let before = world.sidekey.metric(logins).await;
    eventually("the login is tried again", || async {
        assert_eq!(world.sidekey.metric(TTL).await, -1.0);
        world.sidekey.metric(logins).await >= before + 2.0
    })
    .await;
    world.expect_recovery().await;
}

/// It is renewed while that is possible, and then there is no login that gives another.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_for_good_shows_while_logins_fail() {
    let world = World::start(json!({"token_ttl": "6s", "token_max_ttl": "10s"})).await;
    world.destroy_secret_id().await;
    world.expect_end().await;
    world.expect_recovery().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_while_vault_is_away_shows() {
    let mut world = World::start(json!({"token_ttl": "10s"})).await;
    world.bao.kill();
    world.expect_end().await;
}
