//! What users report to the administrators of this server: events, rooms, other users.
//!
//! Specification: client-server API, "Reporting Content".

use exeunt_store::{
    Batch,
    records::{ContentReportRecord, Reported},
    tables::ContentReports,
};
use ruma::{EventId, OwnedUserId, RoomId, UserId};
use serde_json::Value;

use crate::{RoomError, Rooms};

/// Most reports of one user that wait for an administrator.
pub const MAX_REPORTS_PER_USER: usize = 100;
/// Longest reason in bytes.
pub const MAX_REASON_BYTES: usize = 4 * 1024;

impl Rooms {
    /// Reports an event that the user sees, in a room that the user is in; `NotFound` otherwise.
    pub async fn report_event(
        &self,
        reporter: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        let hidden =
            || RoomError::NotFound("There is no such event, or you are not in its room".into());
        let membership = self.member(room_id, reporter).await?;
        if membership.is_none_or(|(membership, _)| membership != "join") {
            return Err(hidden());
        }
        let event = self.event(self.viewer(reporter, None), room_id, event_id).await?;
        let sender = event.as_ref().and_then(|event| event.get("sender")).and_then(Value::as_str);
        let sender: OwnedUserId =
            sender.and_then(|sender| sender.try_into().ok()).ok_or_else(hidden)?;
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        self.put_report(reporter, Reported::Event { room_id, event_id, sender }, reason).await
    }

    /// Reports a room, which the user need not be in, nor this server: one comes across rooms in
    /// directories and invites too.
    pub async fn report_room(
        &self,
        reporter: &UserId,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        self.put_report(reporter, Reported::Room { room_id: room_id.to_owned() }, reason).await
    }

    /// Reports a user. Whether there is such a user is not told.
    pub async fn report_user(
        &self,
        reporter: &UserId,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        self.put_report(reporter, Reported::User { user_id: user_id.to_owned() }, reason).await
    }

    /// Drops a report that has been dealt with.
    pub async fn drop_report(&self, reporter: &UserId, id: u64) -> Result<(), RoomError> {
        let key = (reporter.to_owned(), id);
        let row = key.clone();
        if !self.store().read(move |reader| reader.contains::<ContentReports>(&row)).await? {
            return Err(RoomError::NotFound("There is no such report".into()));
        }
        let mut batch = Batch::default();
        batch.delete::<ContentReports>(&key);
        self.store().commit(batch).await?;
        Ok(())
    }

    async fn put_report(
        &self,
        reporter: &UserId,
        reported: Reported,
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            let text = format!("A reason has at most {MAX_REASON_BYTES} bytes");
            return Err(RoomError::InvalidParam(text));
        }
        let user = reporter.to_owned();
        let waiting = self.store().read(move |reader| reader.scan::<ContentReports>(user).keys());
        if waiting.await?.len() >= MAX_REPORTS_PER_USER {
            return Err(RoomError::TooManyReports);
        }
        let (user, at) = (reporter.to_owned(), self.now());
        tracing::info!(%reporter, ?reported, "a report for the administrators");
        let mut batch = Batch::default();
        batch.at_position(move |position, batch| {
            let record = ContentReportRecord { reported, reason, at };
            batch.put::<ContentReports>(&(user, position), &record);
        });
        self.store().commit(batch).await?;
        Ok(())
    }
}
