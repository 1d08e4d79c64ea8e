use crate::support::{App, Diagnostics, Printed};
use crate::troubleshooting::{Mistaken, NOTHING, sdk};
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, SpanExporter, TracerProviderBuilder,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use tracing::level_filters::LevelFilter;
use tracing::{debug_span, info_span};
use tracing_session::otlp::{Pipeline, Protocol, pipeline};
use tracing_session::{Session, SessionLayer, SessionSampler, SessionTracerProvider};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt};

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:1";

/// A server that knows no such path.
fn elsewhere() -> Pipeline {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 65536];
        let _length = stream.read(&mut request)?;
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    });
    pipeline("app").with_endpoint(format!("http://{address}"))
}

fn error_of(pipeline: Pipeline) -> String {
    pipeline.build::<Registry>().err().unwrap().to_string()
}

rows! {
    nobody_listens: printed "no spans reach" => || {
        let _telemetry = pipeline("app").with_endpoint(DEAD).install().unwrap();
        info_span!("answer").in_scope(|| {});
    };

    shutdown_fails: here "not all spans were exported" => |row| {
        let (telemetry, layer) = elsewhere().build().unwrap();
        let _default = tracing_subscriber::registry().with(layer).set_default();
        info_span!("answer").in_scope(|| {});
        let error = telemetry.shutdown().unwrap_err();
        row.says(&error.to_string());
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("refuses the spans (status code: 404)"), "{source}");
    };

    address_is_wrong: here "the backend at .. refuses" => |row| {
        let app = Mistaken::unwrapped(|_| None::<LevelFilter>);
        let (telemetry, layer) = elsewhere().build().unwrap();
        let subscriber = tracing_subscriber::registry().with(app.diagnostics.clone());
        let _default = subscriber.with(layer).set_default();
        info_span!("answer").in_scope(|| {});
        drop(telemetry);
        row.says_all(&app.messages());
        assert!(app.messages()[0].contains("status code: 404"), "{:?}", app.messages());
    };

    guard_is_not_kept: alone "no span is exported because the telemetry guard" => |row| {
        let app = Mistaken::unwrapped(|_| None::<LevelFilter>);
        let subscriber = || tracing_subscriber::registry().with(app.diagnostics.clone());
        let work = || (0..3).for_each(|_| info_span!("answer").in_scope(|| {}));
        for ends_well in [true, false] {
            let (telemetry, layer) = pipeline("app").with_endpoint(DEAD).build().unwrap();
            let _default = subscriber().with(layer).set_default();
            if ends_well {
                telemetry.shutdown().unwrap();
            } else {
                drop(telemetry);
            }
            work();
            assert_eq!(app.messages().len(), usize::from(!ends_well));
        }
        row.says_all(&app.messages());
    };

    there_is_a_subscriber: alone "there is a global subscriber already" => |row| {
        tracing_subscriber::registry().init();
        row.says(&pipeline("app").install().unwrap_err().to_string());
    };

    another_subscriber_comes_later: alone "a panic: " => |row| {
        let _telemetry = pipeline("app").with_endpoint(DEAD).install().unwrap();
        // What `init` panics with.
        let error = tracing_subscriber::registry().try_init().unwrap_err();
        let text = error.to_string();
        row.has(&text);
    };

    setting_is_not_valid: misled "no such value (valid: ..)" => |row| {
        row.says(&error_of(pipeline("app")));
        let http = || pipeline("app").with_protocol(Protocol::HttpProtobuf);
        row.says(&error_of(http().with_endpoint("http://")));
        row.says(&error_of(http().with_header("two words", "value")));
    };

    endpoint_has_no_scheme: here ".. use this URL, because your endpoint has no scheme" => |row| {
        row.says(&error_of(pipeline("app").with_endpoint("localhost:6006")));
    };

    backend_hangs: patient "the last spans may be lost" => |row| {
        let app = Mistaken::unwrapped(|_| None::<LevelFilter>);
        let hangs = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = format!("http://{}", hangs.local_addr().unwrap());
        let (telemetry, layer) = pipeline("app").with_endpoint(endpoint).build().unwrap();
        let subscriber = tracing_subscriber::registry().with(app.diagnostics.clone());
        let _default = subscriber.with(layer).set_default();
        info_span!("answer").in_scope(|| {});
        drop(telemetry);
        row.says_all(&app.messages());
    };

    layer_is_not_added: alone "no span was exported because the layer" => |row| {
        let app = Mistaken::unwrapped(|_| None::<LevelFilter>);
        let (telemetry, _layer) = pipeline("app").with_endpoint(DEAD).build::<Registry>().unwrap();
        info_span!("answer").in_scope(|| {});
        telemetry.shutdown().unwrap();
        row.says_all(&app.messages());
        assert_eq!(app.messages().len(), 1);
    };

    filter_disables_all: alone "no span was exported because none" => |row| {
        let span = || info_span!("answer").in_scope(|| {});
        let session = || Session::new("chat-42").unwrap().in_scope(|| {});
        let run = |pipeline: Pipeline, level: LevelFilter, work: &dyn Fn()| {
            let diagnostics = Diagnostics::default();
            let (telemetry, layer) = pipeline.with_endpoint(DEAD).build().unwrap();
            let subscriber = tracing_subscriber::registry().with(diagnostics.clone());
            let _default = subscriber.with(layer).with(level).set_default();
            work();
            drop(telemetry);
            diagnostics.messages()
        };
        let app = || pipeline("app");
        // There was nothing to export, or nothing was sampled.
        assert_eq!(run(app(), LevelFilter::INFO, &|| {}), NOTHING);
        let unsampled = app().with_sampler(Sampler::AlwaysOff);
        assert_eq!(run(unsampled, LevelFilter::INFO, &span), NOTHING);
        let filtered = run(app(), LevelFilter::WARN, &span);
        let without_a_span = run(app(), LevelFilter::INFO, &session);
        for said in [filtered, without_a_span] {
            assert_eq!(said.len(), 1);
            row.says_all(&said);
        }
        // Such as a default session, which was set before.
        assert_eq!(run(app(), LevelFilter::INFO, &session), NOTHING);
        let unsampled = app().with_sampler(Sampler::AlwaysOff);
        assert_eq!(run(unsampled, LevelFilter::INFO, &|| Session::default().in_scope(span)), NOTHING);
    };

    levels_are_too_low: quiet "spans of the level INFO are not exported" => || {
        let _telemetry = pipeline("app").with_endpoint(DEAD).install().unwrap();
    };

    directive_is_not_valid: printed "RUST_LOG: `..` is ignored" => || {
        let _telemetry = pipeline("app").with_endpoint(DEAD).install().unwrap();
    };

    nobody_prints: alone "nothing arrives and nothing is printed" => |_| {
        #[derive(Debug)]
        struct Fails;
        impl SpanExporter for Fails {
            async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
                Err(OTelSdkError::InternalFailure("nobody listens".to_owned()))
            }
        }
        let sdk = SdkTracerProvider::builder().with_batch_exporter(Fails).build();
        let provider = SessionTracerProvider::new(sdk);
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let printed = Printed::default();
        let writer = printed.clone();
        let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
        subscriber.with(fmt::layer().with_writer(move || writer.clone())).init();
        info_span!("answer").in_scope(|| {});
        let error = provider.force_flush().unwrap_err();
        assert!(error.to_string().contains("nobody listens"), "{error}");
        let printed = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
        assert!(printed.contains("nobody listens"), "{printed}");
    };

    filter_is_too_strict: here "all spans are missing, or those of" => |_| {
        let work = || debug_span!("below").in_scope(|| info_span!("shown").in_scope(|| {}));
        let app = App::with_layer(|otel| SessionLayer::new().wrap(otel).and_then(LevelFilter::INFO));
        work();
        app.exports("shown");
        drop(app);
        // For the console, which is another layer.
        let app = App::with_layer(|otel| {
            let console = fmt::layer().with_writer(std::io::sink);
            SessionLayer::new().wrap(otel).and_then(console.with_filter(LevelFilter::WARN))
        });
        work();
        app.exports("
            below
              shown
            ");
    };

    process_ends_too_early: here "the last spans are missing" => |_| {
        let exporter = InMemorySpanExporter::default();
        let sdk = SdkTracerProvider::builder().with_batch_exporter(exporter.clone()).build();
        let provider = SessionTracerProvider::new(sdk);
        let open = provider.tracer("app").start("open");
        provider.tracer("app").start("ended").end();
        assert_eq!(exporter.get_finished_spans().unwrap(), []);
        provider.force_flush().unwrap();
        assert_eq!(exporter.get_finished_spans().unwrap().len(), 1);
        drop(open);
    };

    sampler_drops: here "some sessions are missing" => |_| {
        let is_kept = |sdk: TracerProviderBuilder| {
            let provider = SessionTracerProvider::new(sdk.build());
            let session = Session::new("chat-42").unwrap();
            session.in_scope(|| provider.tracer("app").start("answer").is_recording())
        };
        let sdk = SdkTracerProvider::builder;
        let sessions = |ratio| Sampler::parent_based(SessionSampler::new(ratio));
        assert!(!is_kept(sdk().with_sampler(Sampler::TraceIdRatioBased(0.0))));
        assert!(!is_kept(sdk().with_sampler(sessions(0.1))));
        assert!(is_kept(sdk().with_sampler(sessions(1.0))));
    };

    keeping_panics: alone "the function passed to `SessionSampler::" => |row| {
        let sampler = SessionSampler::new(1.0).always_keep(|_| panic!("as it is meant to"));
        let app = App::with_provider(
            |builder| builder.with_sampler(Sampler::parent_based(sampler)),
            |otel| SessionLayer::new().wrap(otel),
        );
        let session = Session::new("chat-42").unwrap();
        session.in_scope(|| info_span!("answer").in_scope(|| {}));
        row.says_all(&app.diagnostics.messages());
        app.exports_with_diagnostics("answer session.id=chat-42", &[&app.diagnostics.messages()[0]]);
    };

    ratio_is_none: here "the ratio .. of a `SessionSampler`" => |row| {
        let app = App::new();
        let (_provider, _exporter) = sdk();
        for ratio in [10.0, -1.0] {
            let _sampler = SessionSampler::new(ratio);
        }
        assert_eq!(app.diagnostics.messages(), NOTHING);
        info_span!("answer").in_scope(|| {});
        row.says_all(&app.diagnostics.messages());
        assert_eq!(app.diagnostics.messages().len(), 2);
    };
}
