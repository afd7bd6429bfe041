//! Asking several servers for the same thing without waiting for the slow ones.

use std::{future::Future, time::Duration};

use exeunt_membership::Attempt;
use futures_util::{StreamExt, stream::FuturesUnordered};
use ruma::OwnedServerName;

/// Handshakes of one departure that run side by side.
pub const MAX_HANDSHAKES_AT_ONCE: usize = 3;

/// How it ended.
pub(super) struct Race<T> {
    /// The first that succeeded. What the others were doing was dropped.
    pub won: Option<(OwnedServerName, T)>,
    /// Those that failed before, in the order in which they did.
    pub lost: Vec<Attempt>,
}

/// Runs `ask` for each server in order until one succeeds. The next one begins when one has failed,
/// or has not answered within `hedge_after`, but never more than [`MAX_HANDSHAKES_AT_ONCE`] run.
///
/// All run in the caller's task: once one has succeeded, none of the others takes another step.
pub(super) async fn race<T, F>(
    servers: &[OwnedServerName],
    hedge_after: Duration,
    ask: impl Fn(OwnedServerName) -> F,
) -> Race<T>
where
    F: Future<Output = Result<T, Attempt>>,
{
    let mut waiting = servers.iter().cloned();
    let mut running = FuturesUnordered::new();
    let mut lost = Vec::new();
    loop {
        if running.len() < MAX_HANDSHAKES_AT_ONCE
            && let Some(server) = waiting.next()
        {
            let asked = ask(server.clone());
            running.push(async move { (server, asked.await) });
        }
        let hedges = running.len() < MAX_HANDSHAKES_AT_ONCE && waiting.len() > 0;
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some((server, Ok(won))) => return Race { won: Some((server, won)), lost },
                Some((_, Err(attempt))) => lost.push(attempt),
                None => return Race { won: None, lost },
            },
            () = tokio::time::sleep(hedge_after), if hedges => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use exeunt_membership::Class;
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
        let won = race(&servers, AFTER, |server| {
            let index = servers.iter().position(|known| *known == server).unwrap();
            let Server(takes, succeeds) = script[index];
            asked.lock().unwrap()[index] = Some(start.elapsed().as_secs());
            async move {
                sleep(Duration::from_secs(takes)).await;
                let failed = Attempt { server, outcome: "no".into(), class: Class::Transient };
                if succeeds { Ok(()) } else { Err(failed) }
            }
        })
        .await;
        let lost = won.lost.iter().map(|attempt| attempt.server.to_string()).collect();
        let asked = asked.into_inner().unwrap().into_iter().flatten().collect();
        (won.won.map(|(server, ())| server.to_string()), lost, asked)
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
