//! Waiting for changes of a mapping, and what is said where they don't come through.

use super::pair::Crossing;
use super::{Crossed, Lag};
use crate::bounds::relay::{DRAINED_LOOK_EVERY, DRAINED_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::driver::{Error, Fence};
use crate::run::{Failure, FailureClass, Mapping, duration, plural};

/// What a wait for changes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Applied,
    AppliedOrParked,
}

impl Crossing {
    pub(super) async fn lag(&self, mapping: &Mapping) -> Result<Lag, Error> {
        self.of_old(self.source()?.lag(std::slice::from_ref(mapping)).await)
    }

    /// Waits until everything is applied that was written to these mappings before. False where that takes too long.
    pub(super) async fn drained(&self, mappings: &[Mapping]) -> Result<bool, Error> {
        self.gone_through(mappings, Until::Applied).await
    }

    /// The same, where what is parked is not waited for.
    pub(super) async fn carried(&self, mappings: &[Mapping]) -> Result<bool, Error> {
        self.gone_through(mappings, Until::AppliedOrParked).await
    }

    async fn gone_through(&self, mappings: &[Mapping], until: Until) -> Result<bool, Error> {
        let source = self.source()?;
        let moment = self.of_old(source.moment().await)?;
        let watch = Stopwatch::start();
        loop {
            let is_through = match until {
                Until::Applied => source.is_drained(&moment, mappings).await,
                Until::AppliedOrParked => source.is_carried(&moment, mappings).await,
            };
            if self.of_old(is_through)? {
                return Ok(true);
            }
            if watch.elapsed_ms() > DRAINED_WITHIN_MS {
                return Ok(false);
            }
            tokio::time::sleep(DRAINED_LOOK_EVERY).await;
        }
    }

    /// Sees that no change is left of a mapping whose changes nobody can read. With the capture they would be forgotten.
    pub(super) async fn none_unread(&self, mapping: &Mapping, why: &Failure) -> Result<(), Error> {
        let lag = self.lag(mapping).await?;
        if lag.rows == 0 {
            return Ok(());
        }
        let (of, verb) = (plural(lag.rows, "change"), if lag.rows == 1 { "is" } else { "are" });
        let message = format!(
            "{of} of mapping {} {verb} left in the outbox, and can't be read: {}",
            mapping.name, why.message
        );
        let mut error = Error::failed(FailureClass::Unsafe, message).with_help(
            "put the table back as it was captured and let the relay carry them, then retry; or go back with `phasegate rollback RUN`",
        );
        if let Error::Failed(failure) = &mut error {
            failure.private.clone_from(&why.private);
        }
        Err(error)
    }

    /// Changes that are still not applied when they have been waited for.
    pub(super) async fn behind(&self, mapping: &Mapping) -> Result<Error, Error> {
        let lag = self.lag(mapping).await?;
        let changes = plural(lag.rows, "change");
        let since = lag.oldest_ms.map_or_else(String::new, |ms| {
            format!(", the oldest of which was written {} ago", duration(ms))
        });
        if lag.parked > 0 {
            let (why, data) = lag.refused(": ");
            let (of, verb) =
                (plural(lag.parked, "change"), if lag.parked == 1 { "is" } else { "are" });
            let message = format!("{of} of mapping {} {verb} parked{why}", mapping.name);
            let parked = Error::failed(FailureClass::Unsafe, message)
                .with_help("see `phasegate status RUN --parked`, mend the rows, then retry");
            return Ok(data.into_iter().fold(parked, Error::with_private));
        }
        let message =
            format!("{changes} of mapping {} have not reached the new side{since}", mapping.name);
        Ok(Error::failed(FailureClass::Contention, message).with_help(
            "the relay is at work while the run is driven, or in `phasegate relay RUN`: let it catch up, then retry",
        ))
    }

    /// Has everything applied that was captured, and what only stands for rows swept away.
    pub(super) async fn carried_over(&self, fence: &Fence, crossed: &Crossed) -> Result<(), Error> {
        let mapping = &crossed.mapping;
        if !self.drained(std::slice::from_ref(mapping)).await? {
            return Err(self.behind(mapping).await?);
        }
        self.of_new(self.sink()?.sweep(fence, crossed).await)?;
        Ok(())
    }
}
