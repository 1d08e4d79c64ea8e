//! The messages of a service: one line each, on its standard output.

use crate::memory::Memory;
use crate::{faults, telemetry, want};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::SocketAddr;

#[derive(Serialize, Deserialize)]
pub(crate) enum Say {
    Listening(SocketAddr),
    Batch(Batch),
    /// It has nothing to do any more, until it is asked again.
    Settled(Figures),
    Stopped(Figures),
}

/// Spans that were given to the exporter at once.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) print: u64,
    pub(crate) spans: u64,
    /// As the exporter reports it.
    pub(crate) arrived: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Spans.
    pub(crate) made: u64,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// As they did not fit into the queue: known once the service is stopped.
    pub(crate) dropped: u64,
    /// How often the SDK has reported a failed export.
    pub(crate) failed_exports: u64,
    pub(crate) looks: u64,
    pub(crate) complaints: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) panics: u64,
    /// Those that were not on purpose.
    pub(crate) accidents: Vec<String>,
    pub(crate) aborted: u64,
    pub(crate) memory: Memory,
}

impl Figures {
    pub(crate) fn now() -> Self {
        // First, before there is anything of this.
        let memory = Memory::now();
        let (started, ended) = telemetry::spans();
        let (looks, complaints) = want::looks();
        let (panics, accidents) = faults::panics();
        Self {
            made: want::spans_made(),
            started,
            ended,
            dropped: telemetry::dropped(),
            failed_exports: telemetry::said("BatchSpanProcessor.ExportError"),
            looks,
            complaints,
            warnings: telemetry::warnings(),
            panics,
            accidents,
            aborted: faults::aborted(),
            memory,
        }
    }
}

impl Say {
    pub(crate) fn aloud(&self) {
        // The parent process reads it. If the parent has closed the pipe, the service ends.
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let _gone = io::stdout().lock().write_all(&line);
        }
    }
}
