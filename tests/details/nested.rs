//! Scopes inside scopes: what is merged, joined and inherited.

use crate::details::{FULL, exports, full, span, with_metadata};
use crate::support::{App, values};
use std::collections::BTreeMap;
use tracing::info_span;
use tracing_session::{Session, current_session, session, user};

#[test]
fn everything_is_on_every_span_once() {
    let app = App::new();
    full().in_scope(|| span("inside"));
    session!(full()).in_scope(|| span("inside"));
    exports(
        &app,
        &[
            &format!("inside{FULL}"),
            &format!("session{FULL}"),
            &format!("inside{FULL}"),
        ],
    );
}

#[test]
fn metadata_is_merged_by_key_and_the_inner_value_wins() {
    let app = App::new();
    let outer = with_metadata(Session::new("chat-42").unwrap(), "tenant", "acme");
    let outer = with_metadata(outer, "step", 1);
    outer.in_scope(|| {
        let inner = with_metadata(Session::default(), "step", 2);
        with_metadata(inner, "tool", "search").in_scope(|| span("inside"));
        session!("chat-43", metadata.step = 3).in_scope(|| {
            info_span!(
                "user",
                user.id = "u-7",
                metadata.step = 4,
                metadata.plan = "pro"
            )
            .in_scope(|| span("inside"));
            span("after");
        });
        span("after");
    });
    exports(
        &app,
        &[
            r#"inside metadata={"tenant":"acme","step":2,"tool":"search"} session.id=chat-42"#,
            r#"session metadata={"tenant":"acme","step":3} session.id=chat-43"#,
            r#"user metadata={"tenant":"acme","step":4,"plan":"pro"} session.id=chat-43 user.id=u-7"#,
            r#"inside metadata={"tenant":"acme","step":4,"plan":"pro"} session.id=chat-43 user.id=u-7"#,
            r#"after metadata={"tenant":"acme","step":3} session.id=chat-43"#,
            r#"after metadata={"tenant":"acme","step":1} session.id=chat-42"#,
        ],
    );
}

#[test]
fn tags_are_joined_without_duplicates() {
    let app = App::new();
    let outer = Session::new("chat-42").unwrap();
    let outer = outer.with_tags(["beta", " web ", "beta"]).unwrap();
    outer.in_scope(|| {
        let inner = Session::default().with_tags(["web", "eu"]).unwrap();
        inner.in_scope(|| span("inside"));
        user!("u-7", tags = "eu,beta").in_scope(|| span("inside"));
        span("after");
    });
    exports(
        &app,
        &[
            r#"inside session.id=chat-42 tag.tags=["beta","web","eu"]"#,
            r#"user session.id=chat-42 tag.tags=["beta","web","eu"] user.id=u-7"#,
            r#"inside session.id=chat-42 tag.tags=["beta","web","eu"] user.id=u-7"#,
            r#"after session.id=chat-42 tag.tags=["beta","web"]"#,
        ],
    );
}

#[test]
fn parts_of_the_template_are_inherited_separately() {
    let app = App::new();
    let outer = Session::default()
        .with_prompt_template("Say {word}")
        .with_prompt_template_version("v1");
    let word = |word| BTreeMap::from([("word", word)]);
    outer.in_scope(|| {
        let inner = Session::default().with_prompt_template_variables(word("hello"));
        inner.unwrap().in_scope(|| {
            let next = Session::default().with_prompt_template_version("v2");
            next.in_scope(|| span("inside"));
            let next = Session::default().with_prompt_template_variables(word("bye"));
            next.unwrap().in_scope(|| span("inside"));
        });
        Session::default()
            .with_prompt_template("Sing")
            .in_scope(|| span("inside"));
    });
    exports(
        &app,
        &[
            r#"inside llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"hello"} llm.prompt_template.version=v2"#,
            r#"inside llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"bye"} llm.prompt_template.version=v1"#,
            "inside llm.prompt_template.template=Sing llm.prompt_template.version=v1",
        ],
    );
}

#[test]
fn attributes_are_merged_by_key() {
    let app = App::new();
    full().in_scope(|| {
        let inner = Session::default().with_attribute("ring", "three").unwrap();
        let inner = inner.with_attribute("region", "eu").unwrap();
        let here = inner.in_scope(|| {
            span("inside");
            current_session().unwrap()
        });
        assert_eq!(here.attribute("ring"), Some(&"three".into()));
        assert_eq!(here.attribute("region"), Some(&"eu".into()));
    });
    let span = app.span("inside");
    assert_eq!(values(&span, "ring"), ["three"]);
    assert_eq!(values(&span, "region"), ["eu"]);
}
