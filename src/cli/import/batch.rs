//! Lines on their way to the API, so many at once that each call ends well within its time limit. A
//! thread reads ahead while calls are made.

use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::lines::{self, Defaults, Format, LINE_BYTES_MAX, Line};

/// Lines of a call. The API begins no line after 10 s (it hashes each plain key), and says where to go on.
const BATCH_LINES_MAX: usize = 250;
/// Bytes of a call's lines; the API takes 1 MiB. One line more always fits.
const BATCH_BYTES_MAX: usize = (768 << 10) - LINE_BYTES_MAX;
/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// Some lines of the file, of which the first are taken away as they are done.
#[derive(Default)]
pub struct Batch {
    /// The objects as JSON.
    objects: VecDeque<String>,
    objects_bytes: usize,
    /// Where each object stands in the file.
    pub numbers: VecDeque<u64>,
    /// Lines that are no objects, and why.
    pub refused: Vec<(u64, String)>,
    /// How far the file is read.
    pub bytes_read: u64,
}

impl Batch {
    pub fn add(&mut self, line: Line) {
        match line.object {
            Ok(object) => {
                self.objects_bytes += object.len() + 1;
                self.objects.push_back(object);
                self.numbers.push_back(line.number);
            }
            Err(detail) => self.refused.push((line.number, detail)),
        }
    }

    /// The objects, one a line.
    pub fn body(&self) -> String {
        let mut body = String::with_capacity(self.objects_bytes);
        for object in &self.objects {
            body.push_str(object);
            body.push('\n');
        }
        body
    }

    /// Takes the first `count` objects away, and what was refused before any was sent.
    pub fn done(&mut self, count: usize) {
        for object in self.objects.drain(..count.min(self.objects.len())) {
            self.objects_bytes -= object.len() + 1;
        }
        self.numbers.drain(..count.min(self.numbers.len()));
        self.refused.clear();
    }

    fn is_full(&self) -> bool {
        self.numbers.len() + self.refused.len() >= BATCH_LINES_MAX
            || self.objects_bytes >= BATCH_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.refused.is_empty()
    }
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Batches as they are read. An error is of the file as a whole, and the last that comes. The thread
/// ends with the file, with the receiver, or with the process.
pub fn read(
    format: Format,
    input: impl Read + Send + 'static,
    defaults: Defaults,
) -> mpsc::Receiver<Result<Batch, String>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        let count = Arc::new(AtomicU64::new(0));
        let input = BufReader::new(Counted {
            inner: input,
            count: count.clone(),
        });
        let mut batch = Batch::default();
        let read = lines::read(format, input, &defaults, &mut |line| {
            batch.add(line);
            if !batch.is_full() {
                return true;
            }
            let mut full = std::mem::take(&mut batch);
            full.bytes_read = count.load(Ordering::Relaxed);
            sender.blocking_send(Ok(full)).is_ok()
        });
        batch.bytes_read = count.load(Ordering::Relaxed);
        // Nobody may be listening any more; then nobody misses anything.
        if !batch.is_empty() {
            let _ = sender.blocking_send(Ok(batch));
        }
        if let Err(problem) = read {
            let _ = sender.blocking_send(Err(problem));
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: String) -> Vec<Batch> {
        let mut receiver = read(
            Format::Jsonl,
            std::io::Cursor::new(text),
            Defaults::default(),
        );
        std::iter::from_fn(|| receiver.blocking_recv())
            .map(|batch| batch.ok().unwrap())
            .collect()
    }

    #[test]
    fn batches_have_a_size_in_lines_and_bytes() {
        let sizes = |text: String| -> Vec<usize> {
            batches(text)
                .iter()
                .map(|batch| batch.numbers.len() + batch.refused.len())
                .collect()
        };
        assert_eq!(
            sizes("{}\n".repeat(BATCH_LINES_MAX * 2 + 1)),
            [BATCH_LINES_MAX, BATCH_LINES_MAX, 1]
        );
        assert_eq!(
            sizes("nonsense\n".repeat(BATCH_LINES_MAX + 1)),
            [BATCH_LINES_MAX, 1]
        );
        assert_eq!(sizes("\n\n".to_owned()), [0usize; 0]);
        let long = format!("{{\"name\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX - 100));
        for batch in batches(long.repeat(30)) {
            assert!(
                batch.body().len() <= BATCH_BYTES_MAX + LINE_BYTES_MAX,
                "{}",
                batch.body().len()
            );
            assert_eq!(batch.body().lines().count(), batch.numbers.len());
        }
    }

    #[test]
    fn numbers_are_those_of_the_file() {
        let batches = batches("\n{}\nx\n\n{}\n".to_owned());
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].numbers, [2, 5]);
        assert_eq!(batches[0].refused[0].0, 3);
        assert_eq!(batches[0].bytes_read, 10);
        let mut batch = batches.into_iter().next().unwrap();
        batch.done(1);
        assert_eq!((batch.body().as_str(), batch.refused.len()), ("{}\n", 0));
        assert_eq!(batch.numbers, [5]);
        batch.done(7);
        assert!(batch.is_empty() && batch.objects_bytes == 0);
    }
}
