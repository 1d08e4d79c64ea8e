//! Explicit beats implicit: the `id` of a span that is an opener only by the default name `session` never replaces
//! a session that code of this process set in any other way.

use crate::opens::{extracted, work};
use crate::support::{self, App, Base, Otel, values};
use std::fmt::Debug;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Span, debug_span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, current_session, current_session_id, layer::SessionExtension,
    session, session::Part, set_session_id,
};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, reload};

/// Runs work in the session `outer`.
type Way = fn(&mut dyn FnMut());

fn outer() -> Session {
    Session::new("outer").unwrap()
}

/// Each way to set a session with code of this process.
const EXPLICIT: &[(&str, Way)] = &[
    ("a value, attached", |work| {
        let _attached = outer().attach();
        work();
    }),
    ("a value, of a future", |work| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .unwrap()
            .block_on(async { work() }.in_session(outer()));
    }),
    ("a value, read back", |work| {
        outer().in_scope(current_session).unwrap().in_scope(work);
    }),
    ("a value, with a user inside", |work| {
        let user = Session::default().with_user("u-7").unwrap();
        outer().in_scope(|| user.in_scope(work));
    }),
    ("session!", |work| session!("outer").in_scope(work)),
    ("session!, with a value", |work| {
        session!(outer()).in_scope(work)
    }),
    ("field", |work| {
        info_span!("request", session.id = "outer").in_scope(work);
    }),
    ("field, recorded", |work| {
        let span = info_span!("request", session.id = Empty);
        span.record("session.id", "outer");
        span.in_scope(work);
    }),
    ("field of a span of the default name", |work| {
        info_span!("session", session.id = "outer").in_scope(work);
    }),
    ("added name", |work| {
        info_span!("conversation", id = "outer").in_scope(work);
    }),
    ("added field", |work| {
        info_span!("request", conversation_id = "outer").in_scope(work);
    }),
    ("set_session_id", |work| {
        info_span!("request").in_scope(|| {
            set_session_id("outer").unwrap();
            work();
        });
    }),
    ("set_on_current_span, inside headers", |work| {
        let _attached = extracted("headers").attach();
        info_span!("request").in_scope(|| {
            outer().set_on_current_span().unwrap();
            work();
        });
    }),
];

/// Each way to get an id that an implicit one replaces.
const REPLACEABLE: &[(&str, Way)] = &[
    ("default name", |work| {
        info_span!("session", id = "outer").in_scope(work);
    }),
    ("default name, recorded", |work| {
        let span = info_span!("session", id = Empty);
        span.in_scope(|| {
            span.record("id", "outer");
            work();
        });
    }),
    ("default name, read back", |work| {
        let read = info_span!("session", id = "outer").in_scope(current_session);
        read.unwrap().in_scope(work);
    }),
    ("headers", |work| {
        let _attached = extracted("outer").attach();
        work();
    }),
    ("headers, read back", |work| {
        Session::of(&extracted("outer")).unwrap().in_scope(work);
    }),
    ("headers, with a user inside", |work| {
        let _attached = extracted("outer").attach();
        let user = Session::default().with_user("u-7").unwrap();
        user.in_scope(|| info_span!("login", user.id = "u-8").in_scope(work));
    }),
];

/// Sets no id, so that an implicit one replaces nothing.
const NOTHING: &[(&str, Way)] = &[
    ("nothing", |work| work()),
    ("a user", |work| {
        Session::default().with_user("u-7").unwrap().in_scope(work);
    }),
    ("a part that is cleared", |work| {
        let cleared = Session::default().without(Part::Session);
        outer().in_scope(|| cleared.in_scope(work));
    }),
    ("another task's", |work| {
        let _entered = session!("outer").entered();
        info_span!(parent: None, "root").in_scope(work);
    }),
];

fn layer() -> SessionLayer {
    SessionLayer::new()
        .with_session_span("conversation")
        .with_session_field("conversation_id")
}

type Make = fn(Otel) -> Box<dyn Layer<Base> + Send + Sync>;

/// The three places where openers are found. In the second one, spans of the level DEBUG are filtered out.
const SET_UPS: [(&str, Make); 4] = [
    ("wrapped", |otel| layer().wrap(otel).boxed()),
    ("filtered", |otel| {
        layer()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
            .boxed()
    }),
    ("around no layer", |_| layer().wrap(None::<Otel>).boxed()),
    ("logs only", |_| layer().boxed()),
];

fn inner(is_filtered: bool) -> Span {
    if is_filtered {
        debug_span!("session", id = "inner", tags = "a", metadata.step = 1)
    } else {
        info_span!("session", id = "inner", tags = "a", metadata.step = 1)
    }
}

fn has_span_session(span: &Span) -> bool {
    let has = span.with_subscriber(|(id, dispatch)| {
        let registry: &tracing_subscriber::Registry = dispatch.downcast_ref().unwrap();
        let span = registry.span(id).unwrap();
        let extensions = span.extensions();
        extensions.get::<SessionExtension>().is_some()
    });
    has.unwrap()
}

/// The current session without its user.
fn current() -> (Option<String>, bool) {
    let session = current_session().unwrap_or_default();
    let has_details = session.metadata("step").is_some() || session.tags().next().is_some();
    (session.id().map(str::to_owned), has_details)
}

/// Asserts that a span that sets the session implicitly does so in each of these ways, or in none.
#[track_caller]
fn sets_in_each(ways: &[(&str, Way)], sets: bool) {
    for (set_up, make) in SET_UPS {
        for (way, run) in ways {
            let app = App::with_layer(make);
            let shown = format!("{set_up}, {way}");
            run(&mut || {
                let before = current();
                let expected = if sets {
                    (Some("inner".to_owned()), true)
                } else {
                    before.clone()
                };
                for is_filtered in [false, true] {
                    // Twice, as a loop would.
                    for _ in 0..2 {
                        let span = inner(is_filtered);
                        assert_eq!(span.in_scope(current), expected, "{shown}");
                        let below = || info_span!("below").in_scope(current);
                        assert_eq!(span.in_scope(below), expected, "{shown}");
                        if !sets {
                            span.record("id", "later").record("tags", "b");
                            assert_eq!(span.in_scope(current), expected, "{shown}");
                        }
                        let tracks_all = ["around no layer", "logs only"].contains(&set_up)
                            || is_filtered && set_up == "filtered";
                        assert!(tracks_all || has_span_session(&span) == sets, "{shown}");
                        assert_eq!(current(), before, "{shown}");
                    }
                }
            });
            // Twice two spans, of two callsites.
            let said = app.diagnostics.messages();
            assert_eq!(said.len(), if sets { 0 } else { 2 }, "{shown}: {said:?}");
            let session = if sets { "inner" } else { "outer" };
            for span in app.spans().iter().filter(|span| span.name == "below") {
                assert_eq!(values(span, "session.id"), [session], "{shown}");
                assert_eq!(values(span, "tag.tags").len(), usize::from(sets), "{shown}");
            }
        }
    }
}

#[test]
fn default_name_never_replaces_a_session_that_was_set_explicitly() {
    sets_in_each(EXPLICIT, false);
}

#[test]
fn default_name_replaces_an_id_of_the_default_name_or_of_headers() {
    sets_in_each(REPLACEABLE, true);
}

#[test]
fn default_name_sets_the_session_if_there_is_none() {
    sets_in_each(NOTHING, true);
}

#[test]
fn default_name_replaces_the_default_session() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    outer().set_global_default().unwrap();
    let ways: &[(&str, Way)] = &[
        ("the default", |work| work()),
        ("read back", |work| {
            current_session().unwrap().in_scope(work)
        }),
        ("with a user", |work| {
            Session::default().with_user("u-7").unwrap().in_scope(work);
        }),
    ];
    sets_in_each(ways, true);
}

/// Each of the ways that are explicit outside is so inside, too, and replaces every id.
#[test]
fn explicit_ways_replace_each_other() {
    for (outer, in_outer) in [EXPLICIT, REPLACEABLE].concat() {
        let _app = App::with(|_| layer());
        in_outer(&mut || {
            let ids = [
                Session::new("inner").unwrap().in_scope(current_session_id),
                session!("inner").in_scope(current_session_id),
                info_span!("session", session.id = "inner").in_scope(current_session_id),
                info_span!("conversation", id = "inner").in_scope(current_session_id),
                info_span!("request", conversation_id = "inner").in_scope(current_session_id),
                info_span!("request").in_scope(|| {
                    set_session_id("inner").unwrap();
                    current_session_id()
                }),
            ];
            for (way, id) in ids.iter().enumerate() {
                assert_eq!(id.as_deref(), Some("inner"), "{outer}, {way}");
            }
        });
    }
}

fn ignored(field: &str, line: u32) -> String {
    format!(
        "the field `{field}` of span `session` at {}:{line} is ignored because your code already set a session, and a \
         span named `session` does not replace it by default: if these spans set your session, use \
         `SessionLayer::new().with_session_span(\"session\")`",
        file!()
    )
}

// What it looks like in an application.

#[test]
fn function_named_session_does_not_move_its_children() {
    const LINE: u32 = line!() + 1;
    #[instrument]
    fn session(id: u64) {
        work();
    }
    let app = App::new();
    outer().in_scope(|| {
        session(99);
        session(100);
    });
    app.exports_with_diagnostics(
        "
        session id=99 session.id=outer
          work session.id=outer
            call session.id=outer
        session id=100 session.id=outer
          work session.id=outer
            call session.id=outer
        ",
        &[&ignored("id", LINE)],
    );
}

/// A server whose connections have an id, too, and whose messages are its sessions.
#[test]
fn session_per_message_inside_a_connection_needs_its_name_added() {
    const LINE: u32 = line!() + 3;
    let serve = || {
        let connection = info_span!("connection", session.id = "tls-1");
        let message = |id| info_span!("session", id);
        connection.in_scope(|| ["chat-42", "chat-43"].map(|id| message(id).in_scope(work)));
    };
    let app = App::new();
    serve();
    app.exports_with_diagnostics(
        "
        connection session.id=tls-1
          session id=chat-42 session.id=tls-1
            work session.id=tls-1
              call session.id=tls-1
          session id=chat-43 session.id=tls-1
            work session.id=tls-1
              call session.id=tls-1
        ",
        &[&ignored("id", LINE)],
    );
    drop(app);
    // The cure that the warning names.
    let app = App::with(|layer| layer.with_session_span("session"));
    serve();
    app.exports(
        "
        connection session.id=tls-1
          session session.id=chat-42
            work session.id=chat-42
              call session.id=chat-42
          session session.id=chat-43
            work session.id=chat-43
              call session.id=chat-43
        ",
    );
    drop(app);
    // If the connection is no conversation at all.
    let app = App::with(|layer| layer.with_opener_filter(|span| span.name() != "connection"));
    serve();
    app.exports(
        "
        connection session.id=tls-1
          session session.id=chat-42
            work session.id=chat-42
              call session.id=chat-42
          session session.id=chat-43
            work session.id=chat-43
              call session.id=chat-43
        ",
    );
}

#[test]
fn fields_of_an_ignored_span_stay_as_they_are() {
    let app = App::new();
    outer().in_scope(|| {
        let span = info_span!("session", id = "inner", user.id = Empty, tags = "a");
        span.record("user.id", "u-7").record("id", "later");
        span.in_scope(|| {});
        drop(span);
        let id = "inner";
        info_span!("session", id, session.id = "by its field").in_scope(|| {});
    });
    assert_eq!(app.diagnostics.messages().len(), 1);
    let (first, second) = (&app.spans()[0], &app.spans()[1]);
    assert_eq!(values(first, "id"), ["inner", "later"]);
    assert_eq!(values(first, "session.id"), ["outer"]);
    assert_eq!(values(first, "user.id"), ["u-7"]);
    assert_eq!(values(first, "tags"), ["a"]);
    assert_eq!(values(second, "id"), [""; 0]);
    assert_eq!(values(second, "session.id"), ["by its field"]);
}

#[test]
fn implicit_id_that_is_recorded_replaces_no_explicit_one() {
    let app = App::new();
    let span = info_span!("session", id = Empty, session.id = "by its field");
    span.record("id", "by its name");
    span.in_scope(work);
    drop(span);
    app.exports(
        "
        session session.id=by its field
          work session.id=by its field
            call session.id=by its field
        ",
    );
    drop(app);
    let app = App::new();
    outer().in_scope(|| {
        let span = info_span!("session", id = "outer");
        span.record("id", "other").in_scope(work);
    });
    app.exports(
        "
        session session.id=outer
          work session.id=outer
            call session.id=outer
        ",
    );
}

#[test]
fn children_of_an_ignored_span_inherit_from_its_parent() {
    for (set_up, make) in [SET_UPS[0], SET_UPS[1]] {
        let app = App::with_layer(make);
        session!("outer").in_scope(|| {
            for is_filtered in [false, true] {
                let ignored = inner(is_filtered);
                let _elsewhere = session!(parent: None, "elsewhere").entered();
                info_span!(parent: &ignored, "below").in_scope(|| {});
                info_span!(parent: &ignored, "login", user.id = "u-7").in_scope(|| {});
            }
        });
        for span in app
            .spans()
            .iter()
            .filter(|it| ["below", "login"].contains(&&*it.name))
        {
            assert_eq!(values(span, "session.id"), ["outer"], "{set_up}");
        }
    }
}

#[test]
fn implicit_id_is_accepted_or_ignored_when_the_span_is_created() {
    let app = App::new();
    let request = info_span!("request", session.id = Empty);
    request.in_scope(|| {
        let before = info_span!("session", id = "inner", otel.name = "before");
        request.record("session.id", "outer");
        let after = info_span!("session", id = "inner", otel.name = "after");
        for span in [before, after] {
            span.in_scope(|| info_span!("below").in_scope(|| {}));
        }
    });
    drop(request);
    app.exports_with_diagnostics(
        "
        request session.id=outer
          before session.id=inner
            below session.id=inner
          after id=inner session.id=outer
            below session.id=outer
        ",
        &[&ignored("id", line!() - 14)],
    );
}

/// Headers replace what is outside them, and the name replaces headers.
#[test]
fn headers_inside_an_explicit_session_let_the_default_name_set_the_session() {
    let app = App::new();
    outer().in_scope(|| {
        let request = info_span!("request");
        request.set_parent(extracted("chat-42")).unwrap();
        request.in_scope(|| info_span!("session", id = "chat-43").in_scope(work));
    });
    app.exports(
        "
        request session.id=chat-42
          session session.id=chat-43
            work session.id=chat-43
              call session.id=chat-43
        ",
    );
}

#[test]
fn sessions_with_implicit_and_explicit_ids_are_equal() {
    let implicit = Session::of(&extracted("chat-42")).unwrap();
    let explicit = Session::new("chat-42").unwrap();
    assert_eq!(implicit, explicit);
    let shown = |it: &dyn Debug| format!("{it:?}");
    assert_eq!(shown(&implicit), shown(&explicit));
}

/// `reload::Layer` answers no downcast, so the crate doesn't find the parent's `Context`.
#[test]
fn implicit_child_of_an_explicit_session_behind_a_reloadable_layer_is_ignored() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(reload::Layer::new(otel).0));
    let chat = session!("outer");
    info_span!(parent: &chat, "session", id = 7).in_scope(work);
    drop(chat);
    for span in app.spans() {
        assert_eq!(values(&span, "session.id"), ["outer"], "{}", span.name);
    }
}
