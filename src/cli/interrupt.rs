//! Work that is told to end before its time: it goes as it came, without leaving half of anything.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// Whoever ends a command: a person at a terminal, a supervisor, a terminal that is closed.
const SIGNALS: [SignalKind; 3] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
];

/// Does `work`. Where a signal comes first, the work is dropped where it stands, and `advice` says what to
/// do then. Signals are heeded from before its beginning.
pub async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    advice: &str,
) -> Result<T, Failure> {
    let [mut interrupt, mut terminate, mut hangup] = SIGNALS.map(signal);
    tokio::select! {
        biased;
        () = told(&mut interrupt) => {}
        () = told(&mut terminate) => {}
        () = told(&mut hangup) => {}
        done = work => return done,
    }
    Err(Failure::Failed(format!("interrupted: {advice}")))
}

/// Ends with the next such signal; never, where the system gives none.
async fn told(signal: &mut std::io::Result<Signal>) {
    if let Ok(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
