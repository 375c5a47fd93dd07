//! Work in the thread of Node, where a panic would end the process: here it is an
//! error of whoever asked for the work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use machina_core::Result;
use machina_http::assemble::panicked;

/// What is left of work that has begun.
pub(crate) type Rest<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Does `work`.
pub(crate) fn done<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// Begins `work`: its answer if that is there at once, or what is left of it.
pub(crate) fn begun<T>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<Either<T, Rest<T>>> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut work = Box::pin(work.map(|answer| answer.unwrap_or_else(|_| Err(panicked()))));
    match work.as_mut().now_or_never() {
        Some(answer) => answer.map(Either::Left),
        None => Ok(Either::Right(work)),
    }
}

#[cfg(test)]
mod tests {
    use machina_core::{Error, ErrorKind};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(done(|| -> Result<()> { panic!("canary") }).unwrap_err().message(), panicked().message());
        assert_eq!(done(|| -> Result<()> { Err(Error::invalid("x")) }).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(done(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn so_is_one_of_work_that_begins() {
        let panics = |at_once: bool| async move { if at_once { panic!("canary") } else { Ok(7) } };
        let Err(error) = begun(panics(true)) else { panic!("it did not panic") };
        assert_eq!(error.message(), panicked().message());
        assert!(matches!(begun(panics(false)), Ok(Either::Left(7))));
    }

    #[test]
    fn so_is_one_of_work_that_goes_on() {
        let (go, gone) = oneshot::channel::<u8>();
        // Dropping the sender is what makes it panic.
        let waits = async move { Ok(gone.await.unwrap()) };
        let Ok(Either::Right(rest)) = begun(waits) else { panic!("it did not wait") };
        drop(go);
        assert_eq!(rest.now_or_never().unwrap().unwrap_err().message(), panicked().message());
    }
}
