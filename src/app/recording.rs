//! What is noted beside answers, on its way to the audit log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::recorder::Recorder;
use crate::store::AuditStore;

/// How long the end may wait for what is in the queue: as long as a call of the database.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that writes what is noted.
pub(super) struct Recording {
    recorder: Arc<Recorder>,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Recording {
    pub(super) fn start(recorder: &Arc<Recorder>, store: &Arc<dyn AuditStore>) -> Self {
        let (stop, stopping) = watch::channel(false);
        Recording {
            recorder: recorder.clone(),
            task: tokio::spawn(recorder.clone().run(store.clone(), stopping)),
            stop,
        }
    }

    /// Writes what is left, when nothing is noted any more; it takes a limited time.
    pub(super) async fn finish(mut self) {
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout(FINISH_TIMEOUT, &mut self.task).await;
        if ended.is_err() {
            self.task.abort();
        }
        let lost = self.recorder.waiting();
        if lost > 0 {
            tracing::error!(
                lost,
                "sign-ins and refused admin calls could not be noted, and are lost"
            );
        }
    }
}
