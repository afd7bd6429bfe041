//! The task of one destination.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use exeunt_core::ruma::OwnedServerName;
use exeunt_store::records::{DestinationRecord, OutageMark, SetAsideRecord};
use exeunt_store::tables::{Destinations, Outbox};
use exeunt_store::{Batch, StoreError};
use metrics::counter;
use serde_json::Value;

use crate::backoff::millis;
use crate::catch_up::{self, EDU_LIFE_MS, LONG_OUTAGE_MS};
use crate::sender::{Place, Shared, Signal};
use crate::transaction::{self, MAX_ITEMS, Next, Transaction};
use crate::{SendError, TransactionAnswer};
use crate::{refused_leave, set_aside};

pub(crate) struct Destination<'t> {
    shared: &'t Arc<Shared>,
    server: &'t OwnedServerName,
    signal: &'t Arc<Signal>,
    record: DestinationRecord,
    tried_at: u64,
    hunt: Option<Hunt>,
}

/// The search for the row that makes a server refuse whole transactions: halves until one is left.
#[derive(Debug, Clone, Copy)]
struct Hunt {
    limit: usize,
    /// Last position of the transaction that was refused first.
    until: u64,
}

enum Step {
    Progress,
    Empty,
    BackOff,
}

impl<'t> Destination<'t> {
    pub(crate) fn new(
        shared: &'t Arc<Shared>,
        server: &'t OwnedServerName,
        signal: &'t Arc<Signal>,
    ) -> Self {
        let record = DestinationRecord::default();
        Self { shared, server, signal, record, tried_at: 0, hunt: None }
    }

    /// Sends until the queue is empty.
    pub(crate) async fn run(mut self, delay: Duration, place: &Place) {
        while let Err(error) = self.load().await {
            self.store_failed(&error).await;
        }
        let now = self.shared.now();
        self.wait_until(self.record.retry_at.max(now.saturating_add(millis(delay)))).await;
        loop {
            match self.step().await {
                Ok(Step::Progress) => {}
                Ok(Step::Empty) if place.retire() => return,
                Ok(Step::Empty) => {}
                Ok(Step::BackOff) => self.wait_until(self.record.retry_at).await,
                Err(error) => self.store_failed(&error).await,
            }
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let key = self.server.clone();
        let record = self.shared.store.read(move |r| r.get::<Destinations>(&key)).await?;
        self.record = record.unwrap_or_default();
        Ok(())
    }

    /// One transaction, or the finding that there is none to send.
    async fn step(&mut self) -> Result<Step, StoreError> {
        let Ok(_turn) = self.shared.sending.acquire().await else { return Ok(Step::BackOff) };
        self.signal.woken.store(false, Ordering::SeqCst);
        self.signal.alive.store(false, Ordering::SeqCst);
        let limit = self.hunt.map_or(MAX_ITEMS, |hunt| hunt.limit);
        let now = self.shared.now();
        let store = &self.shared.store;
        let transaction =
            match transaction::next(store, self.server, &mut self.record, limit, now).await? {
                Next::Nothing => return Ok(Step::Empty),
                Next::Again => return Ok(Step::Progress),
                Next::Send(transaction) => transaction,
            };
        let body = match transaction.body(&self.shared.server_name, now) {
            Ok(body) => body,
            // The store checks values as it reads them, so this is a bug; it must not spin.
            Err(error) => return self.fail(format!("unreadable event: {error}")).await,
        };
        match self.send(&transaction.id, body).await {
            Ok(answer) => self.delivered(&transaction, &answer).await,
            Err(error) if error.may_be_content() => self.refused(transaction, error).await,
            Err(error) => self.fail(error.to_string()).await,
        }
    }

    async fn send(&mut self, txn_id: &str, body: Value) -> Result<TransactionAnswer, SendError> {
        self.tried_at = self.shared.now();
        let limit = self.shared.options.send_timeout;
        let attempt = self.shared.transport.send_transaction(self.server, txn_id, body);
        match tokio::time::timeout(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Unreachable(format!("no answer in {limit:?}"))),
        }
    }

    async fn delivered(
        &mut self,
        transaction: &Transaction,
        answer: &TransactionAnswer,
    ) -> Result<Step, StoreError> {
        count("taken");
        let refused = transaction.not_accepted(answer, self.shared.now());
        self.forget(transaction, refused).await?;
        let last = transaction.positions.last().copied();
        if self.hunt.is_some_and(|hunt| last.is_some_and(|last| last >= hunt.until)) {
            self.hunt = None;
        }
        self.shared.reached(self.server);
        Ok(Step::Progress)
    }

    /// The server will not have the transaction: the next one is half of it. When one row is left
    /// and the server takes an empty transaction, the row is to blame and is set aside.
    async fn refused(
        &mut self,
        transaction: Transaction,
        error: SendError,
    ) -> Result<Step, StoreError> {
        count("refused");
        let server = self.server;
        if let [.., _, last] = transaction.positions[..] {
            let count = transaction.positions.len();
            tracing::warn!(%server, count, %error, "a transaction was refused, trying half of it");
            let until = self.hunt.map_or(last, |hunt| hunt.until.max(last));
            self.hunt = Some(Hunt { limit: count / 2, until });
            self.record.in_flight = None;
            return Ok(Step::Progress);
        }
        self.hunt = None;
        let now = self.shared.now();
        let probe = transaction::empty_body(&self.shared.server_name, now);
        if let Err(also) = self.send(&format!("{}-probe", transaction.id), probe).await {
            return self.fail(format!("{error}; an empty transaction: {also}")).await;
        }
        let refused = transaction.refused(&error.to_string(), self.shared.now());
        self.forget(&transaction, refused).await?;
        Ok(Step::Progress)
    }

    /// The rows go, those that the server refused into a table of their own, and the server counts
    /// as well, in one batch.
    async fn forget(
        &mut self,
        transaction: &Transaction,
        refused: Vec<(u64, SetAsideRecord)>,
    ) -> Result<(), StoreError> {
        let server = self.server;
        for (_, SetAsideRecord { event_id, edu_type, why, .. }) in &refused {
            tracing::warn!(%server, ?event_id, ?edu_type, why, "set aside what the server refuses");
        }
        let record = DestinationRecord {
            last_success: Some(self.shared.now()),
            ..DestinationRecord::default()
        };
        let mut batch = Batch::default();
        for position in &transaction.positions {
            batch.delete::<Outbox>(&(self.server.clone(), *position));
        }
        batch.put::<Destinations>(self.server, &record);
        let now = self.shared.now();
        transaction.note_deliveries(self.server, &refused, now, &mut batch);
        let _turn = match refused.is_empty() {
            true => None,
            false => Some(self.shared.refusals.lock().await),
        };
        let events = refused.iter().filter_map(|(_, row)| row.event_id.clone()).collect();
        let Shared { store, server_name, .. } = &**self.shared;
        refused_leave::keep(store, server_name, server, events, now, &mut batch).await?;
        set_aside::put(&self.shared.store, self.server, refused, &mut batch).await?;
        self.shared.store.commit(batch).await?;
        self.record = record;
        Ok(())
    }

    async fn fail(&mut self, error: String) -> Result<Step, StoreError> {
        count("failed");
        let now = self.shared.now();
        let failures = self.record.failures.saturating_add(1);
        let jitter = (self.shared.jitter)();
        self.record.failures = failures;
        self.record.retry_at = self.shared.options.backoff.retry_at(now, failures, jitter);
        self.record.failing_since.get_or_insert(now);
        let (server, retry_at) = (self.server, self.record.retry_at);
        tracing::info!(%server, failures, retry_at, error, "a transaction failed");
        self.record.last_error = Some(error);
        let mut batch = Batch::default();
        batch.put::<Destinations>(self.server, &self.record);
        self.shared.store.commit(batch).await?;
        if let Err(error) = self.keep_within_bounds(now).await {
            tracing::error!(server = %self.server, %error, "a queue cannot be kept within bounds");
        }
        Ok(Step::BackOff)
    }

    /// After a long outage the queue holds no more than is worth sending. Rows have no date: a mark
    /// is set, and what is before it is old when the mark is.
    async fn keep_within_bounds(&mut self, now: u64) -> Result<(), StoreError> {
        let since = self.record.failing_since.unwrap_or(now);
        if now.saturating_sub(since) < LONG_OUTAGE_MS {
            return Ok(());
        }
        let under_way = self.record.in_flight.as_ref().map_or(&[][..], |sent| &sent.positions);
        let Shared { store, server_name, .. } = &**self.shared;
        let mark = self.record.mark;
        let old = mark.filter(|mark| now.saturating_sub(mark.at) >= EDU_LIFE_MS);
        let up_to = old.map_or(0, |mark| mark.position);
        let dropped = catch_up::trim(store, self.server, server_name, under_way, up_to).await?;
        if dropped > 0 {
            let server = self.server;
            tracing::warn!(%server, dropped, "a server that is away for long will miss this much");
        }
        if mark.is_none() || old.is_some() {
            let position = store.read(|reader| reader.position()).await?;
            self.record.mark = Some(OutageMark { position, at: now });
            let mut batch = Batch::default();
            batch.put::<Destinations>(self.server, &self.record);
            store.commit(batch).await?;
        }
        Ok(())
    }

    /// Waits for a time of the clock. A sign of life ends the wait and the back-off, though not
    /// sooner after the last attempt than the first back-off.
    async fn wait_until(&mut self, mut until: u64) {
        let backoff = self.shared.options.backoff;
        loop {
            if self.signal.alive.swap(false, Ordering::SeqCst) {
                self.record.failures = 0;
                until = until.min(self.tried_at.saturating_add(millis(backoff.first)));
            }
            // A clock that was set back must not make the wait longer than any back-off.
            let wait = Duration::from_millis(until.saturating_sub(self.shared.now()));
            let longest = backoff.last.max(self.shared.options.start_spread);
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait.min(longest)) => return,
                () = self.signal.notify.notified() => {}
            }
        }
    }

    async fn store_failed(&mut self, error: &StoreError) {
        tracing::error!(server = %self.server, %error, "the outbox waits for the store");
        let backoff = self.shared.options.backoff;
        tokio::time::sleep(backoff.delay(STORE_RETRY, (self.shared.jitter)())).await;
        // What was decided but not stored is forgotten.
        if let Err(error) = self.load().await {
            tracing::error!(server = %self.server, %error, "cannot read the state of delivery");
        }
    }
}

/// The wait after a failure of the store, counted in doublings of the back-off.
const STORE_RETRY: u32 = 5;

fn count(outcome: &'static str) {
    counter!("exeunt_transactions_total", "outcome" => outcome).increment(1);
}
