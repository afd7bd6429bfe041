//! The departure of a whole account: every room left, every invite turned down, every knock taken
//! back, as a job that goes on after a restart (pains C8).

use std::collections::BTreeSet;

use exeunt_store::{
    Batch, StoreError,
    records::{DepartureEnd, DepartureJobRecord, DepartureResult},
    tables,
};
use futures_util::{StreamExt, stream};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{RoomError, Rooms};

/// Rooms that one job leaves at once.
pub const LEAVES_AT_ONCE: usize = 8;
/// How often a job looks for what has come while it ran.
const MAX_PASSES: usize = 3;
/// The job's row is written this often, and after every this many rooms at least.
const WRITES_PER_JOB: usize = 50;

impl Rooms {
    /// Starts the departure of a user from everywhere, or goes on with the one under way. What is
    /// given back is its state at the start; [`Rooms::departure_job`] tells how far it is.
    pub async fn depart_all(&self, user: &UserId) -> Result<DepartureJobRecord, RoomError> {
        let known = self.departure_job(user).await?;
        let job = match known.filter(|job| job.finished_at.is_none()) {
            Some(under_way) => under_way,
            None => {
                let mut job =
                    DepartureJobRecord { started_at: self.now(), ..DepartureJobRecord::default() };
                self.write_job(user, &mut job).await?;
                job
            }
        };
        self.spawn_job(user.to_owned());
        Ok(job)
    }

    /// How far the departure of a user is, `None` if there never was one.
    pub async fn departure_job(
        &self,
        user: &UserId,
    ) -> Result<Option<DepartureJobRecord>, RoomError> {
        let key = user.to_owned();
        Ok(self.store().read(move |reader| reader.get::<tables::DepartureJobs>(&key)).await?)
    }

    /// Goes on with the jobs that a restart has cut off. Gives how many.
    pub async fn resume_jobs(&self) -> Result<usize, RoomError> {
        let read = self.store().read(|reader| {
            let jobs = reader.scan::<tables::DepartureJobs>(()).iter();
            let open = jobs.filter_map(|row| match row {
                Ok((user, job)) => job.finished_at.is_none().then_some(Ok(user)),
                Err(error) => Some(Err(error)),
            });
            open.collect::<Result<Vec<_>, StoreError>>()
        });
        let open = read.await?;
        let count = open.len();
        for user in open {
            self.spawn_job(user);
        }
        Ok(count)
    }

    fn spawn_job(&self, user: OwnedUserId) {
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = rooms.run_departure_job(&user).await {
                tracing::error!(%user, %error, "a departure from everywhere stopped; a restart goes on with it");
            }
        });
    }

    /// Runs the job of a user to its end. One at a time: a second run finds nothing to do.
    pub async fn run_departure_job(&self, user: &UserId) -> Result<DepartureJobRecord, RoomError> {
        let _turn = self.inner.jobs.lock(user.to_owned()).await;
        let job = self.departure_job(user).await?;
        let mut job = job.ok_or_else(|| RoomError::NotFound("No such departure".into()))?;
        let mut tried = BTreeSet::new();
        for _ in 0..MAX_PASSES {
            if job.finished_at.is_some() {
                return Ok(job);
            }
            self.list_rooms(user, &mut job, &tried).await?;
            let todo: Vec<_> = open_rooms(&job).filter(|room| tried.insert(room.clone())).collect();
            if todo.is_empty() {
                break;
            }
            self.write_job(user, &mut job).await?;
            let every = (job.results.len() / WRITES_PER_JOB).max(LEAVES_AT_ONCE);
            let leaves = todo.into_iter().map(|room| async move {
                let ended = self.depart_from(user, &room).await;
                (room, ended)
            });
            let mut leaves = stream::iter(leaves).buffer_unordered(LEAVES_AT_ONCE);
            let mut unwritten = 0;
            while let Some((room, ended)) = leaves.next().await {
                if let Some(result) = job.results.iter_mut().find(|r| r.room_id == room) {
                    result.ended = ended;
                }
                unwritten += 1;
                if unwritten >= every {
                    self.write_job(user, &mut job).await?;
                    unwritten = 0;
                }
            }
        }
        job.finished_at = Some(self.now());
        self.write_job(user, &mut job).await?;
        let failed = job.results.iter().filter(|r| matches!(r.ended, DepartureEnd::Failed(_)));
        let (rooms, failed) = (job.results.len(), failed.count());
        tracing::info!(%user, rooms, failed, "a user has departed from everywhere");
        Ok(job)
    }

    /// Adds the rooms that the user is in and that the job does not know, and takes those up again
    /// that an earlier run has left and the user has come into since. What was `tried` in this run
    /// keeps its end.
    async fn list_rooms(
        &self,
        user: &UserId,
        job: &mut DepartureJobRecord,
        tried: &BTreeSet<OwnedRoomId>,
    ) -> Result<(), RoomError> {
        let key = user.to_owned();
        let read = self.store().read(move |reader| {
            let mut present = Vec::new();
            for row in reader.scan::<tables::Memberships>(key).iter() {
                let ((_, room_id), record) = row?;
                if matches!(record.membership.as_str(), "join" | "invite" | "knock") {
                    present.push((room_id, record.membership));
                }
            }
            Ok::<_, StoreError>(present)
        });
        let present = read.await?;
        let known: BTreeSet<_> = job.results.iter().map(|r| r.room_id.clone()).collect();
        for (room_id, membership) in present.into_iter().filter(|(room, _)| !tried.contains(room)) {
            if !known.contains(&room_id) {
                let ended = DepartureEnd::Waiting;
                job.results.push(DepartureResult { room_id, membership, ended });
            } else if let Some(again) = job.results.iter_mut().find(|r| r.room_id == room_id) {
                again.ended = DepartureEnd::Waiting;
            }
        }
        Ok(())
    }

    async fn depart_from(&self, user: &UserId, room_id: &RoomId) -> DepartureEnd {
        match self.leave(user, room_id, None).await {
            Ok(()) => {}
            // Gone or banned since: out all the same.
            Err(RoomError::NotFound(_)) => return DepartureEnd::Left,
            Err(error) => {
                tracing::warn!(%user, %room_id, %error, "a room could not be left");
                return DepartureEnd::Failed(error.to_string());
            }
        }
        let key = (user.to_owned(), room_id.to_owned());
        let queued = self.store().read(move |r| r.contains::<tables::Departures>(&key)).await;
        match queued {
            Ok(true) => DepartureEnd::Queued,
            Ok(false) => DepartureEnd::Left,
            Err(error) => DepartureEnd::Failed(error.to_string()),
        }
    }

    async fn write_job(
        &self,
        user: &UserId,
        job: &mut DepartureJobRecord,
    ) -> Result<(), RoomError> {
        job.total = job.results.len() as u64;
        job.done = job.total - open_rooms(job).count() as u64;
        let mut batch = Batch::default();
        batch.put::<tables::DepartureJobs>(&user.to_owned(), job);
        self.store().commit(batch).await?;
        Ok(())
    }
}

/// Rooms that the job has yet to leave.
fn open_rooms(job: &DepartureJobRecord) -> impl Iterator<Item = OwnedRoomId> {
    let open = job.results.iter().filter(|result| result.ended == DepartureEnd::Waiting);
    open.map(|result| result.room_id.clone())
}
