//! Items that need a feature. This file is compiled without any.

use tracing_session::SessionSampler;
//~ `sampler` feature
use tracing_session::fmt::with_session;
//~ `fmt` feature
use tracing_session::processors::SessionLogProcessor;
//~ `logs` feature
use tracing_session::propagation::reqwest;
//~ `reqwest` feature
use tracing_session::propagation::tower::server;
//~ `tower` feature

fn paths() {
    let _telemetry = tracing_session::otlp::pipeline("chat").install();
    //~ `otlp` feature
    let _format = tracing_session::fmt::with_session;
    //~ `fmt` feature
    let _sampler = tracing_session::SessionSampler::new(0.5);
    //~ `sampler` feature
    let _processor = tracing_session::processors::SessionLogProcessor::new();
    //~ `logs` feature
    let _middleware = tracing_session::propagation::reqwest::middleware();
    //~ `reqwest` feature
    let _layer = tracing_session::propagation::tower::client();
    //~ `tower` feature
}
