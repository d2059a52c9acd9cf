//! The program with everything that it can depend on.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::harness::openbao::OpenBao;
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::sidekey::Sidekey;
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, eventually_within};

/// How long a count of what is stored may take on a busy machine, its pauses included.
const COUNT_DEADLINE: Duration = Duration::from_secs(120);
/// Requests of a key of these tests that pass at once.
pub const BURST: u64 = 100_000;

/// Routes for each behaviour in an outage, patient limits on time, usage that is stored every second.
fn config(upstream: &Upstream) -> String {
    let mut text = format!(
        "[[upstreams]]\nname = \"service\"\nservers = [\"{}\"]\n\
         [[scopes]]\nname = \"orders:read\"\n\
         [limits]\nbackend = \"redis\"\ninstances = 2\n\
         default = [{{ name = \"default\", quota = {BURST}, window_seconds = 3600 }}]\n\
         [usage]\nflush_interval_seconds = 1\n\
         [bcrypt]\nthreads = 2\nmax_queue = 77\n\
         [redis]\ntimeout_ms = 10000\n",
        upstream.address
    );
    for (path, on_outage) in [("/", "local"), ("/open", "open"), ("/closed", "closed")] {
        write!(
            text,
            "[[routes]]\nname = \"{on_outage}\"\npath = \"{path}\"\nupstream = \"service\"\non_outage = \"{on_outage}\"\n"
        )
        .unwrap();
    }
    text
}

pub struct Stack {
    pub postgres: Postgres,
    pub redis: Redis,
    pub bao: OpenBao,
    pub sidekey: Sidekey,
    _upstream: Upstream,
}

impl Stack {
    pub async fn start() -> Self {
        let upstream = Upstream::start().await;
        // Redis need not wait for a busy disk: nothing has to outlive it.
        let (postgres, redis, bao) = tokio::join!(
            Postgres::start(),
            Redis::start_with(Path::new("redis-server"), &["--appendonly", "no"]),
            OpenBao::start_durable()
        );
        let role = bao.app_role(json!({}), None).await;
        let more = bao.config(&role.lines());
        let (store, redis_url) = (postgres.url(), redis.url());
        let environment = [
            ("SIDEKEY__STORE__URL", store.as_str()),
            ("SIDEKEY__REDIS__URL", redis_url.as_str()),
        ];
        let config = format!("{}{more}", config(&upstream));
        Stack {
            sidekey: Sidekey::start_with(&config, &environment).await,
            postgres,
            redis,
            bao,
            _upstream: upstream,
        }
    }

    /// The value of a series now.
    pub async fn now(&self, series: &str) -> f64 {
        self.sidekey.metric(series).await
    }

    /// The values of `series` now, to be held against later ones.
    pub async fn marks<'a>(&self, series: &[&'a str]) -> Vec<(&'a str, f64)> {
        let mut marks = Vec::new();
        for &one in series {
            marks.push((one, self.now(one).await));
        }
        marks
    }

    /// Waits until all of them have grown.
    pub async fn have_grown(&self, marks: Vec<(&str, f64)>) {
        for (series, before) in marks {
            eventually(&format!("{series} grows beyond {before}"), || async {
                self.now(series).await > before
            })
            .await;
        }
    }

    /// Waits until a series has a value.
    pub async fn is(&self, series: &str, value: f64) {
        eventually(&format!("{series} is {value}"), || async {
            self.now(series).await == value
        })
        .await;
    }

    /// Waits until a number of what is stored has been counted: that is done seldom, and more seldom where
    /// it takes long.
    pub async fn is_counted(&self, series: &str, value: f64) {
        eventually_within(COUNT_DEADLINE, &format!("{series} is {value}"), || async {
            self.now(series).await == value
        })
        .await;
    }
}
