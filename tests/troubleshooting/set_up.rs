use crate::troubleshooting::{Mistaken, NOTHING, PAGE, sdk, session_of, some};
use opentelemetry::global;
use opentelemetry::trace::Tracer;
use opentelemetry_sdk::trace::SpanLimits;
use tracing::level_filters::LevelFilter;
use tracing::{info_span, warn_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionLayer, SessionTracerProvider, current_session_id, session, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;

/// In whatever way the session is said.
fn work() {
    session!("chat-42").in_scope(|| info_span!("by a span").in_scope(|| {}));
    Session::new("chat-43").unwrap().in_scope(value);
}

fn value() {
    info_span!("by a value").in_scope(|| {});
}

rows! {
    provider_is_not_wrapped: here "spans are exported without their session because the OpenTelemetry layer" => |row| {
        type Work = fn();
        let in_value: Work = || Session::new("chat-43").unwrap().in_scope(value);
        for work in [work, in_value, value] {
            let app = Mistaken::unwrapped(|otel| SessionLayer::new().wrap(otel));
            (0..3).for_each(|_| work());
            assert_eq!(app.messages().len(), 1);
            row.says_all(&app.messages());
        }
    };

    layer_is_missing: alone "the macros `session!` and `user!` have no effect because" => |row| {
        let subscriber = || tracing_subscriber::registry();
        let library = subscriber().set_default();
        session!("chat-42").in_scope(|| {});
        drop(library);
        let app = Mistaken::wrapped(|otel| otel);
        work();
        assert_eq!(app.messages().len(), 1);
        user!("u-7").in_scope(|| {});
        assert_eq!(app.session_of("by a span"), None);
        assert_eq!(app.session_of("by a value"), some("chat-43"));
        assert_eq!(app.messages().len(), 1);
        row.says_all(&app.messages());
    };

    layer_is_beside: here "spans are exported without their session because the `SessionLayer`" => |row| {
        let app = Mistaken::wrapped(|otel| SessionLayer::new().and_then(otel));
        (0..3).for_each(|_| work());
        row.says_all(&app.messages());
        assert_eq!(app.messages().len(), 1);
    };

    there_are_two_layers: here "the subscriber has two" => |row| {
        for other_comes_first in [true, false] {
            let app = Mistaken::wrapped(|otel| {
                let (around, other) = (SessionLayer::new().wrap(otel), SessionLayer::new());
                match other_comes_first {
                    true => other.and_then(around).boxed(),
                    false => around.and_then(other).boxed(),
                }
            });
            work();
            assert_eq!(app.session_of("by a span"), some("chat-42"));
            row.says_all(&app.messages());
            assert_eq!(app.messages().len(), 1);
        }
    };

    context_is_not_activated: here "attached sessions and `current_session()` have no effect" => |row| {
        type Work = fn();
        for work in [work as Work, value] {
            let app = Mistaken::wrapped(|otel| {
                SessionLayer::new().wrap(otel.with_context_activation(false))
            });
            (0..3).for_each(|_| work());
            row.says_all(&app.messages());
            assert_eq!(app.messages().len(), 1);
        }
    };

    filter_disables_the_span: alone "the macros `session!` and `user!` have no effect where" => |row| {
        let app = Mistaken::wrapped(|otel| {
            SessionLayer::new().wrap(otel).and_then(LevelFilter::WARN)
        });
        for _ in 0..3 {
            session!("chat-42").in_scope(|| assert_eq!(current_session_id(), None));
            user!("u-7").in_scope(|| {});
        }
        assert_eq!(app.messages().len(), 1);
        row.says_all(&app.messages());
        let session = Session::new("chat-43").unwrap();
        session.in_scope(|| warn_span!("by a value").in_scope(|| {}));
        assert_eq!(app.session_of("by a value"), some("chat-43"));
    };

    filter_hides_the_span: here "the span that sets the session is missing too" => |_| {
        let said = || session!("chat-42").in_scope(|| warn_span!("below").in_scope(|| {}));
        let app = Mistaken::wrapped(|otel| {
            SessionLayer::new().wrap(otel.with_filter(LevelFilter::WARN))
        });
        said();
        assert_eq!((app.session_of("below"), app.spans().len()), (None, 1));
        assert_eq!(app.messages(), NOTHING);
        drop(app);
        let app = Mistaken::wrapped(|otel| {
            SessionLayer::new()
                .with_opener_level(tracing::Level::INFO)
                .wrap_filtered(otel, LevelFilter::WARN)
        });
        said();
        assert_eq!((app.session_of("below"), app.spans().len()), (some("chat-42"), 1));
    };

    global_provider_is_not_wrapped: alone "spans of a library are in no session" => |_| {
        let (provider, exporter) = sdk();
        let library = || {
            let session = Session::new("chat-42").unwrap();
            session.in_scope(|| global::tracer("library").in_span("library", |_| {}));
            let spans = exporter.get_finished_spans().unwrap();
            exporter.reset();
            session_of(&spans, "library")
        };
        global::set_tracer_provider(provider.clone());
        assert_eq!(library(), None);
        global::set_tracer_provider(SessionTracerProvider::new(provider));
        assert_eq!(library(), some("chat-42"));
    };

    span_has_too_many_attributes: here "a span with very many attributes" => |_| {
        let many = |limit: Option<u32>| {
            let app = crate::support::App::with_provider(
                |builder| match limit {
                    Some(limit) => builder.with_max_attributes_per_span(limit),
                    None => builder,
                },
                |otel| SessionLayer::new().wrap(otel),
            );
            Session::new("chat-42").unwrap().in_scope(|| {
                let span = info_span!("many");
                (0..130).for_each(|at| span.set_attribute(format!("key.{at}"), at));
                span.in_scope(|| {});
            });
            let span = app.span("many");
            assert_eq!(app.diagnostics.messages(), NOTHING);
            (session_of(std::slice::from_ref(&span), "many"), span.dropped_attributes_count > 0)
        };
        assert_eq!(SpanLimits::default().max_attributes_per_span, 128);
        assert_eq!(many(None), (None, true));
        assert_eq!(many(Some(200)), (some("chat-42"), false));
    };

    there_are_two_versions: here "the trait `Tracer` is not implemented" => |_| {
        let manifest = include_str!("../../Cargo.toml");
        let row = PAGE.lines().find(|line| line.starts_with("| the trait `Tracer`")).unwrap();
        for package in ["opentelemetry", "tracing-opentelemetry"] {
            let entry = manifest.lines().find(|it| it.starts_with(&format!("{package} = ")));
            let version = entry.unwrap().split('"').nth(1).unwrap();
            // Each minor release of this crate supports one minor release of these.
            let minor = version.split('.').take(2).collect::<Vec<_>>().join(".");
            assert!(row.contains(&format!("{minor} of `{package}`")), "{package} {version}");
        }
    };
}
