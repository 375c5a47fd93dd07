//! What is shown on stderr while something takes time: bars on a terminal,
//! nothing elsewhere. The log goes through here, so that the two do not write
//! over each other.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// How often a bar that waits is drawn again.
const TICK: Duration = Duration::from_millis(120);

/// How something looks whose length is known.
const PROGRESS: &str = "{msg} {wide_bar} {pos}/{len} {elapsed} (about {eta} left)";

/// The terminal behind stderr, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    bars: MultiProgress,
    terminal: bool,
    coloured: bool,
}

impl Screen {
    /// `quiet` shows no bars.
    pub(crate) fn new(quiet: bool, colour: bool) -> Self {
        let coloured = io::stderr().is_terminal() && colour;
        let terminal = io::stderr().is_terminal() && !quiet;
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), terminal, coloured }
    }

    /// Whether a person watches stderr.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether stderr shows colours.
    pub(crate) fn is_coloured(&self) -> bool {
        self.coloured
    }

    /// A line on stderr.
    pub(crate) fn line(&self, text: &str) {
        self.bars.suspend(|| {
            // There is nowhere to say that stderr is gone.
            let _ = writeln!(io::stderr().lock(), "{}", crate::output::clean(text));
        });
    }

    /// A spinner with a text.
    pub(crate) fn spinner(&self, text: String) -> Bar {
        let bar = self.bars.add(ProgressBar::new_spinner().with_message(text));
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// A count of things done, out of `total`.
    pub(crate) fn counter(&self, text: &'static str, total: usize) -> Bar {
        let bar = self.bars.add(ProgressBar::new(total as u64).with_message(text));
        bar.set_style(style("{spinner} {msg} {pos}/{len} {elapsed}"));
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// How far something is of `total`; of 0, of a number that is not known.
    pub(crate) fn progress(&self, text: &'static str, total: u64) -> Bar {
        let bar = self.bars.add(ProgressBar::new(total).with_message(text));
        let template = if total == 0 { "{spinner} {msg} {pos} {elapsed}" } else { PROGRESS };
        bar.set_style(style(template));
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Something that takes time; gone from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    pub(crate) fn one_more(&self) {
        self.0.inc(1);
    }

    /// Stands still from now on.
    pub(crate) fn done(&self, text: String) {
        self.0.disable_steady_tick();
        self.0.set_style(style("{msg}"));
        self.0.set_message(crate::output::clean(&text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Lets the log write between the bars.
impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> Self::Writer {
        LogWriter(self.bars.clone())
    }
}

/// One line of the log.
#[derive(Debug)]
pub(crate) struct LogWriter(MultiProgress);

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write_all(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
