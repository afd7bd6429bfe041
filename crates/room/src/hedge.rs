//! Asking several servers for the same thing without waiting for the slow ones: for a leave, each
//! with a whole handshake; for a join or a knock, each for the template, which commits nobody.

use std::{pin::Pin, time::Duration, vec};

use futures_util::{StreamExt, stream::FuturesUnordered};
use ruma::OwnedServerName;

type Asking<'a, T> = Pin<Box<dyn Future<Output = (OwnedServerName, T)> + Send + 'a>>;

/// How fast one goes from server to server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long a server may take before the next one is asked as well.
    pub after: Duration,
    /// Most servers that are being asked at a time.
    pub at_once: usize,
}

/// The servers that have yet to be asked, and those that have yet to answer. All are asked in the
/// caller's task: once the caller has what it wants, none of the others takes another step.
pub(crate) struct Hedge<'a, T, F> {
    pace: Pace,
    waiting: vec::IntoIter<OwnedServerName>,
    running: FuturesUnordered<Asking<'a, T>>,
    ask: F,
}

impl<'a, T, F, A> Hedge<'a, T, F>
where
    F: Fn(OwnedServerName) -> A,
    A: Future<Output = T> + Send + 'a,
{
    pub fn new(servers: Vec<OwnedServerName>, pace: Pace, ask: F) -> Self {
        Self { pace, waiting: servers.into_iter(), running: FuturesUnordered::new(), ask }
    }

    /// The next answer, in whatever order they come; `None` when there are no more. To ask for it
    /// is to say that those before were not good enough: another server is asked at once.
    pub async fn next(&mut self) -> Option<(OwnedServerName, T)> {
        loop {
            if self.running.len() < self.pace.at_once
                && let Some(server) = self.waiting.next()
            {
                let asking = (self.ask)(server.clone());
                self.running.push(Box::pin(async move { (server, asking.await) }));
            }
            let hedges = self.running.len() < self.pace.at_once && self.waiting.len() > 0;
            tokio::select! {
                biased;
                answer = self.running.next() => return answer,
                () = tokio::time::sleep(self.pace.after), if hedges => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ruma::ServerName;
    use tokio::time::{Instant, sleep};

    use super::*;

    const AFTER: Duration = Duration::from_secs(1);

    /// What a server does: after so many seconds it succeeds, or fails.
    #[derive(Clone, Copy)]
    struct Server(u64, bool);

    /// Who won, who failed, and when (in seconds) each was asked.
    async fn run(script: &[Server]) -> (Option<String>, Vec<String>, Vec<u64>) {
        let name = |index| ServerName::parse(format!("s{index}.example")).unwrap();
        let servers: Vec<_> = (0..script.len()).map(name).collect();
        let start = Instant::now();
        let asked = Mutex::new(vec![None; script.len()]);
        let pace = Pace { after: AFTER, at_once: 3 };
        let mut hedge = Hedge::new(servers.clone(), pace, |server| {
            let index = servers.iter().position(|known| *known == server).unwrap();
            let Server(takes, succeeds) = script[index];
            asked.lock().unwrap()[index] = Some(start.elapsed().as_secs());
            async move {
                sleep(Duration::from_secs(takes)).await;
                succeeds
            }
        });
        let (mut won, mut lost) = (None, Vec::new());
        while let Some((server, succeeds)) = hedge.next().await {
            if succeeds {
                won = Some(server.to_string());
                break;
            }
            lost.push(server.to_string());
        }
        drop(hedge);
        let asked = asked.into_inner().unwrap().into_iter().flatten().collect();
        (won, lost, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_is_enough() {
        let (won, lost, asked) = run(&[Server(0, true), Server(0, true)]).await;
        assert_eq!((won.as_deref(), lost.len(), asked), (Some("s0.example"), 0, vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_asked_when_one_fails() {
        let (won, lost, asked) = run(&[Server(0, false), Server(0, false), Server(0, true)]).await;
        assert_eq!(won.as_deref(), Some("s2.example"));
        assert_eq!((lost, asked), (vec!["s0.example".into(), "s1.example".into()], vec![0, 0, 0]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_asked_when_one_is_slow() {
        let (won, lost, asked) = run(&[Server(60, true), Server(60, true), Server(1, true)]).await;
        assert_eq!((won.as_deref(), lost.len()), (Some("s2.example"), 0));
        assert_eq!(asked, [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_no_more() {
        let slow = Server(10, false);
        let (won, lost, asked) = run(&[slow, slow, slow, slow, slow]).await;
        assert_eq!((won, lost.len()), (None, 5));
        assert_eq!(asked, [0, 1, 2, 10, 11]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_may_still_win() {
        let (won, lost, _) = run(&[Server(5, true), Server(1, false), Server(60, true)]).await;
        assert_eq!((won.as_deref(), lost), (Some("s0.example"), vec!["s1.example".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_to_ask() {
        assert_eq!(run(&[]).await, (None, Vec::new(), Vec::new()));
    }
}
