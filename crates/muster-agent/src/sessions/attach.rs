//! The terminals of tasks themselves, for who joins them.

use super::{Ear, Listening, Mouth, Output, Session, Sessions, WAITING_MAX, give, killed};
use crate::supervisor::{Found, FromSupervisor, ToSupervisor};
use muster_model::LaunchNumber;
use muster_node::Process;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

impl Sessions {
    /// Joins the terminal of a task itself, whose process this is: what it is given, and what it shows from now on, if
    /// that is asked for. It is left when neither is held any more.
    pub(crate) async fn attach(
        &self,
        launch: LaunchNumber,
        process: &Process,
        output: bool,
    ) -> Result<(Arc<Session>, Option<Listening>), String> {
        let (ear, write) = self.begin(launch, process, ToSupervisor::Attach { output }).await?;
        let (input, given) = mpsc::channel(WAITING_MAX);
        let (ended, _) = watch::channel(None);
        tokio::spawn(give(given, write, ended.subscribe()));
        let session = Arc::new(Session { input, ended: ended.clone(), listeners: Mutex::default() });
        let (mouth, listening) = Mouth::new(WAITING_MAX, Some(session.clone()));
        tokio::spawn(follow(ear, output.then_some(mouth), ended));
        Ok((session, output.then_some(listening)))
    }
}

/// Carries what the terminal of a task shows to one who joined it, until either is gone.
async fn follow(mut ear: Ear, mouth: Option<Mouth>, ended: watch::Sender<Option<Found>>) {
    let left = async {
        match &mouth {
            Some(mouth) => mouth.outputs.closed().await,
            None => std::future::pending().await,
        }
    };
    let told = async {
        loop {
            match ear.hear().await {
                Ok(Some(FromSupervisor::Output { is_error, bytes })) => {
                    if let Some(mouth) = &mouth {
                        // What waits beyond that waits at the supervisor, which has a limit.
                        let _ = mouth.outputs.send(Output { is_error, bytes }).await; // who is gone is seen by the other
                    }
                }
                Ok(Some(FromSupervisor::SessionEnded(found))) => return Some(found),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    };
    let found = tokio::select! {
        found = told => found,
        () = left => None,
    };
    if found.is_none()
        && let Some(mouth) = &mouth
    {
        mouth.cut();
    }
    ended.send_replace(Some(found.unwrap_or_else(killed)));
}
