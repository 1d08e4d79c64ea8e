use crate::support::{App, Printed};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use tracing::dispatcher::{get_default, with_default};
use tracing::{Dispatch, info, info_span};
use tracing_session::fmt::with_session;
use tracing_session::{Session, SessionLayer, processors::SessionLogProcessor};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn has_session(subscriber: impl Into<Dispatch>, printed: &Printed) -> bool {
    let _default = subscriber.into().set_default();
    chat().in_scope(|| info!("answered"));
    let line = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    assert!(line.contains("answered"));
    line.contains("chat-42")
}

rows! {
    formatter_knows_no_session: here "lines of `fmt` have no session" => |_| {
        let printed = || {
            let printed = Printed::default();
            let writer = printed.clone();
            (fmt::layer().with_writer(move || writer.clone()), printed)
        };
        let base = || tracing_subscriber::registry().with(SessionLayer::new());
        let (layer, lines) = printed();
        assert!(!has_session(base().with(layer), &lines));
        let (layer, lines) = printed();
        assert!(has_session(base().with(layer.map_event_format(with_session)), &lines));
    };

    processor_comes_too_late: here "exported records have no session" => |_| {
        for before in [false, true] {
            let exporter = InMemoryLogExporter::default();
            let builder = SdkLoggerProvider::builder();
            let logs = match before {
                true => builder
                    .with_log_processor(SessionLogProcessor::new())
                    .with_simple_exporter(exporter.clone()),
                false => builder
                    .with_simple_exporter(exporter.clone())
                    .with_log_processor(SessionLogProcessor::new()),
            };
            let logs = logs.build();
            let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
            let _default = subscriber.with(OpenTelemetryTracingBridge::new(&logs)).set_default();
            chat().in_scope(|| info!("answered"));
            let records = exporter.get_emitted_logs().unwrap();
            let mut attributes = records[0].record.attributes_iter();
            assert_eq!(attributes.any(|(key, _)| key.as_str() == "session.id"), before);
        }
    };

    thread_has_no_subscriber: here "in a test, spans of other threads are missing" => |_| {
        let app = App::new();
        let unheard = || info_span!("unheard").in_scope(|| {});
        std::thread::scope(|it| it.spawn(unheard).join()).unwrap();
        let dispatch = get_default(Dispatch::clone);
        let heard = || with_default(&dispatch, || info_span!("heard").in_scope(|| {}));
        std::thread::scope(|it| it.spawn(heard).join()).unwrap();
        app.exports("heard");
    };
}
