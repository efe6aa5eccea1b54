use tokio::sync::watch;

/// How far the end of the server has come, as its front ends are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No end in sight.
    #[default]
    Open,
    /// The connections there are end when what is owed on them is written. New ones are taken: who comes is told that
    /// the server ends, and sequences can be brought to theirs.
    Leaving,
    /// Nothing is accepted any more, and every connection ends.
    Closed,
}

impl Stage {
    /// When a connection is told to end that was accepted at this stage.
    #[must_use]
    pub fn last_of_connection(self) -> Self {
        if self == Self::Open { Self::Leaving } else { Self::Closed }
    }

    /// Returns when the end has come so far, or nobody is left to say so.
    pub async fn reached(self, mut now: watch::Receiver<Self>) {
        let _ = now.wait_for(|now| *now >= self).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_comes_late_stays_until_the_doors_close() {
        let (told, now) = watch::channel(Stage::Open);
        let (early, late) = (Stage::Open.last_of_connection(), Stage::Leaving.last_of_connection());
        assert_eq!((early, late), (Stage::Leaving, Stage::Closed));
        told.send(Stage::Leaving).unwrap();
        early.reached(now.clone()).await;
        let waiting = tokio::spawn(late.reached(now.clone()));
        told.send(Stage::Closed).unwrap();
        waiting.await.unwrap();
        drop(told);
        Stage::Closed.reached(now).await;
    }
}
