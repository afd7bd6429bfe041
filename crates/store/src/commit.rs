//! Group commit: one writer, one sync for all batches that wait.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::derived::Derived;
use crate::engine::{Changes, Engine};
use crate::reader::POSITION;
use crate::tables::Meta;
use crate::{Batch, StoreError};

/// Most batches that wait for the committer. More callers wait for room.
const MAX_WAITING: usize = 1024;
/// Most bytes of rows in one synced write; the batch that passes it is the last one.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Takes batches and writes them. With a thread of its own, or in the caller's turn.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    derived: Arc<Derived>,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Semaphore>,
    writer: Mutex<Writer>,
    position: watch::Sender<u64>,
}

struct Queue {
    open: bool,
    requests: VecDeque<Request>,
}

struct Request {
    batch: Batch,
    answer: oneshot::Sender<Result<u64, StoreError>>,
    _room: OwnedSemaphorePermit,
}

struct Writer {
    position: u64,
    failed: Option<String>,
}

impl Committer {
    /// A committer without a thread: a commit writes in its caller's turn, alone. For engines that
    /// do not block; what happens then depends on the order of the calls alone.
    pub(crate) fn inline(engine: Arc<dyn Engine>, derived: Arc<Derived>, position: u64) -> Self {
        let shared = Arc::new(Shared {
            engine,
            derived,
            queue: Mutex::new(Queue { open: true, requests: VecDeque::new() }),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(MAX_WAITING)),
            writer: Mutex::new(Writer { position, failed: None }),
            position: watch::Sender::new(position),
        });
        Self { shared, thread: Mutex::new(None) }
    }

    /// Gives it a thread.
    pub(crate) fn spawn(self) -> io::Result<Self> {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            let _close = CloseOnExit(&shared);
            while let Some(requests) = shared.next_group() {
                shared.write(requests);
            }
        })?;
        *lock(&self.thread) = Some(thread);
        Ok(self)
    }

    pub(crate) fn position(&self) -> watch::Receiver<u64> {
        self.shared.position.subscribe()
    }

    pub(crate) async fn commit(&self, batch: Batch, inline: bool) -> Result<u64, StoreError> {
        let room =
            self.shared.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { batch, answer, _room: room };
        if inline {
            if !lock(&self.shared.queue).open {
                return Err(StoreError::Closed);
            }
            self.shared.write(vec![request]);
        } else {
            let mut queue = lock(&self.shared.queue);
            if !queue.open {
                return Err(StoreError::Closed);
            }
            queue.requests.push_back(request);
            drop(queue);
            self.shared.wake.notify_one();
        }
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more batches, and waits until those taken are written.
    pub(crate) fn close(&self) {
        self.shared.refuse();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            // The last store may be dropped by a closure that the committer itself runs.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the committer panicked");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn refuse(&self) {
        lock(&self.queue).open = false;
        self.room.close();
        self.wake.notify_all();
    }

    /// Waits for batches; `None` when the committer is closed and nothing waits.
    fn next_group(&self) -> Option<Vec<Request>> {
        let mut queue = lock(&self.queue);
        while queue.requests.is_empty() {
            if !queue.open {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while bytes < MAX_GROUP_BYTES
            && let Some(request) = queue.requests.pop_front()
        {
            bytes += request.batch.bytes();
            group.push(request);
        }
        Some(group)
    }

    /// Writes a group with one sync, and answers everyone.
    fn write(&self, group: Vec<Request>) {
        let mut writer = lock(&self.writer);
        let (result, answers) = writer.write(self, group);
        if result.is_ok() {
            let position = writer.position;
            self.position.send_if_modified(|known| std::mem::replace(known, position) != position);
        }
        drop(writer);
        for (answer, position) in answers {
            // A caller that has stopped waiting needs no answer.
            let _ = answer.send(result.clone().and(position));
        }
    }
}

type Answers = Vec<(oneshot::Sender<Result<u64, StoreError>>, Result<u64, StoreError>)>;

impl Writer {
    fn write(&mut self, shared: &Shared, group: Vec<Request>) -> (Result<(), StoreError>, Answers) {
        let mut position = self.position;
        let mut changes = Changes::new();
        let mut answers = Answers::new();
        for Request { batch, answer, _room } in group {
            let settled = if batch.is_empty() {
                Ok(position)
            } else {
                let next = batch.position_after(position);
                batch.settle(next).map(|rows| {
                    changes.extend(rows);
                    position = next;
                    position
                })
            };
            answers.push((answer, settled));
        }
        (self.write_changes(shared, changes, position), answers)
    }

    fn write_changes(
        &mut self,
        shared: &Shared,
        mut changes: Changes,
        position: u64,
    ) -> Result<(), StoreError> {
        if let Some(failure) = &self.failed {
            return Err(StoreError::Failed(failure.clone()));
        }
        if position == self.position {
            return Ok(());
        }
        let mut meta = Batch::default();
        meta.put::<Meta>(&POSITION.to_owned(), &position);
        changes.extend(meta.settle(position)?);
        shared.derived.change(&changes, position);
        if let Err(error) = shared.engine.write(&changes) {
            tracing::error!(%error, "a write failed, the store stops writing");
            self.failed = Some(error.to_string());
            return Err(error);
        }
        self.position = position;
        Ok(())
    }
}

/// When the committer ends, by panic too, nobody is left waiting.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        self.0.refuse();
        lock(&self.0.queue).requests.clear();
    }
}

/// A panic of a batch's closure leaves no half-made change behind a lock: the lock stays usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
