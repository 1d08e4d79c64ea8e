//! What OpenInference's own tests say of sessions, users, metadata, tags and prompt templates, said in
//! Rust: each case under its own name, in a module named for its suite. Every case, and where it is:
//!
//! | suite | case | covered by |
//! | --- | --- | --- |
//! | Python, `test_context_managers` | `suppress_tracing` | `python::test_context_managers::suppress_tracing` |
//! | | `using_session`, `_user`, `_metadata`, `_tags`, `_prompt_template`, `_attributes` | the same names there; JSON has no spaces here |
//! | | the same as decorators | `.._decorator` there |
//! | | `get_attributes_from_context` | the same name there |
//! | | `safe_json_dumps_encodes_non_serializable_objects` | the same name there; an error here, as nothing else can be shown of a value that serde refuses |
//! | | `safe_json_dumps_encodes_non_ascii_characters_without_escaping` | the same name there |
//! | | `capture_span_context` | no meaning: a span's ids are read from the span, by `Span::context` |
//! | Python, `test_manual_instrumentation` | `using_session` of a context manager, of the chain's and of the tool's decorator | `python::test_manual_instrumentation::{context_manager, chain_decorator, tool_decorator}_using_session` |
//! | | `suppress_tracing`, of the three | `suppress_tracing` there |
//! | | `no_traces_are_produced_when_otel_sdk_disabled` | `otlp.rs`, `disabled_makes_no_spans_and_passes_the_session_on`; a provider that the application builds is its own to leave out |
//! | | `sampler_receives_all_attributes` | the same name there; what is in force is in the `Context` here, not among the attributes |
//! | | `sampler_receives_masked_attributes` | the same name there; nothing is hidden from a sampler here, which is in the process |
//! | | what it tests of inputs, outputs, tools and models | no meaning: nothing is instrumented here; `openinference_spans.rs` has what helps to |
//! | Python, `test_config` | `attribute_priority`, in 8 variants | `python::test_manual_instrumentation::attribute_priority`; what comes last is lost here, as the SDK's spans only append |
//! | | the rest | no meaning: the masking of content, of which there is none |
//! | Python, `test_tracer_providers` | limits of 10,000 attributes, or as the environment and the code say | no meaning: the provider is the application's, and its limit holds: `attribute_priority` |
//! | Python, `test_projects` | `nested_project_overrides`, `enable_tracing_..` | no meaning: the project is of the provider's resource, which an SDK does not change |
//! | JavaScript, `contextAttributes` | "should set ..", "should delete .. from the context" of the six | `javascript::context_attributes::{prompt_template, session_id, metadata, user, tags, attributes}`; tags are a list here, as the specification has it |
//! | | "should set multiple attributes on the context" | `set_multiple_attributes_on_the_context` there |
//! | | "should get all attributes off of the context" | `get_all_attributes_off_of_the_context` there |
//! | | "should have attributes unset outside of the context.with scope" | `attributes_unset_outside_of_the_scope` there |
//! | | "should ignore context attributes that cannot be set as span attributes (non primitive)" | no meaning: only text is an id, only a `Value` is an attribute, by their types |
//! | JavaScript, `OITracer` | `startSpan`, `startActiveSpan` "should add OpenInference context attributes to spans" | `javascript::oi_tracer::{start_span, start_active_span}_adds_context_attributes` |
//! | | "should properly nest spans" | `spans_are_properly_nested` there |
//! | | "should create an OISpan ..", "should handle overloads correctly" | no meaning: the masking of content; functions are not overloaded |
//! | Go, `instrumentation_test` | `Suppression`, `ApplyContextAttributes_{EmptyContextNoOp, AllValuesPropagated, Partial}`, `WithTags_{VariadicAndEmpty, DefensiveCopy}` | the same names in `go` |
//! | | `StringHelpers_EmptyValueIsNoOp` | `go::string_helpers_empty_value_is_no_op`; an empty value is an error here (C7) |
//! | Go, clients | `Middleware_{SuppressedContextEmitsNoSpan, ContextAttributesPropagateToSpan}` | the same names in `go` |
//! | Java, `TraceAdviceTest` | `onEnterReturnsNullWhenSuppressedViaContext` | the same name in `java` |
//! | | `onEnterReturnsNullWhenSuppressedViaConfig` | no meaning: the application leaves the layer out |
//! | | `onEnterPropagates{SessionId, UserId, Tags, AllContextAttributes}FromContext`, `onEnterCreatesSpanWithoutContextAttributesWhenNoneSet` | the same names in `java` |
//! | | the rest | no meaning: names, kinds, inputs and outputs of annotated methods |
//! | `openinference-vercel`, Simple and Batch | "stamps session.id from the OpenInference context", and by default | `processor`, `vercel::stamps_session_id_onto_a_span_that_it_did_not_make` |
//! | | "propagates multiple context attributes" | `propagates_multiple_context_attributes` there |
//! | | "does NOT stamp context attributes when explicitly disabled" | `does_not_stamp_without_the_processor` there |
//! | | "keeps session.id on a re-rooted AI span whose non-AI parent is filtered out" | `keeps_session_id_where_the_parent_is_filtered_out` there |
//! | `claude-agent-sdk` | `propagated_session_id_not_overwritten_by_sdk_session`, `.._on_error_result`, `sdk_session_id_set_when_none_propagated` | the same names in `instrumentors::precedence`, for a library that asks; one that does not has the last word on its span (C2) |
//! | | `receive_response_preserves_session_id_set_by_span_processor` | `receive_response_session_id_set_by_span_processor_stands_beside` there: processors pass us by (C2) |
//! | `openai-agents` | `realtime_spans_inherit_session_context_from_session_creation`, `realtime_context_session_id_takes_precedence_over_provider_session_id`, `realtime_spans_use_provider_session_id_when_context_has_none` | the same names there |
//! | `google-adk` | `sub_agent_session_id_not_overwritten_by_adk_internal_uuid` | `sub_agent_session_id_stays_on_its_own_span`, `field_of_a_library_opens_a_scope_unless_the_layer_is_told_otherwise` there (C2, A2) |
//! | `langchain` | `read_session_from_metadata` | the same name there; of several on one span the last counts |
//! | `crewai` | `context_attributes_are_captured_at_start_time` | the same name in `instrumentors` |
//! | `agno` | `background_run_captures_detached_context_attributes`, `.._respects_suppress_tracing`, `background_stream_has_executor_span_and_context` | the same names in `instrumentors::background` |
//! | `haystack`, `dspy`, `anthropic`, `cohere`, `litellm`, `ollama`, `together`, `ag2` | `*_context_attributes*` | `instrumentors::context_attributes` |
//! | Phoenix | `test_ProjectSession`: `num_traces`, `first_input`, `last_output`, `traces`, `user_id`, `token_usage` | `backends/phoenix.py`, of a Phoenix that runs |
//! | | `num_traces_with_error`, latency, project; `test_sessions`, `test_session_io` | no meaning: queries of the server |
//!
//! What none of them tests is in `more`, where it is not elsewhere:
//!
//! | case | covered by |
//! | --- | --- |
//! | blank ids; every type that an id can be | `values`, `value_that_is_no_id_is_ignored_and_the_outer_one_stays`, `every_way_to_write_an_id_makes_the_same_string`; `more` |
//! | nested, and sibling sessions in one trace | `values`, `inner_value_stands_before_the_outer_one_which_is_restored`; `more` |
//! | recorded late; spans that are open when the session is set | `values`, `value_recorded_late_..`, `value_set_on_the_current_span_..` |
//! | tasks, blocking threads, threads | `inherits`, `tasks_threads_and_streams_keep_the_scope_that_they_were_made_in`; `concurrency.rs` |
//! | explicit parents, and none | `inherits`, `explicit_children_..`, `span_with_no_parent_..` |
//! | `follows_from`; a span closed on another thread; a scope left early | `more` |
//! | reloadable layers; filters; hidden sessions | `inherits`, `works_around_..`, `hidden_span_..`; `more` |
//! | another user inside a session; an own attribute | `values`, `session_and_user_are_inherited_each_on_its_own`, `own_attribute_..` |
//! | plain attributes `session` and `user` | `values`, `plain_session_and_user_attributes_..` |
//! | what a span leaves behind | `memory/` |

mod go;
mod instrumentors;
mod java;
mod javascript;
mod more;
mod python;

use crate::support::{session, shown};
use std::collections::BTreeMap;
use tracing::info_span;
use tracing_session::Session;

/// The seven that `using_attributes` takes, as OpenInference's tests set them.
fn everything() -> Session {
    session("test-session")
        .with_user("test-user")
        .and_then(|it| it.with_metadata("key-int", 1))
        .and_then(|it| it.with_metadata("key-str", "2"))
        .and_then(|it| it.with_metadata("key-list", [1, 2, 3]))
        .and_then(|it| it.with_tags(["tag_1", "tag_2"]))
        .map(|it| it.with_prompt_template("Say {var_str}"))
        .map(|it| it.with_prompt_template_version("v1.0"))
        .and_then(|it| it.with_prompt_template_variables(BTreeMap::from([("var_str", "2")])))
        .unwrap()
}

/// And as every span exports them.
const EVERYTHING: [(&str, &str); 7] = [
    ("session.id", "test-session"),
    ("user.id", "test-user"),
    (
        "metadata",
        r#"{"key-int":1,"key-str":"2","key-list":[1,2,3]}"#,
    ),
    ("tag.tags", r#"["tag_1","tag_2"]"#),
    ("llm.prompt_template.template", "Say {var_str}"),
    ("llm.prompt_template.version", "v1.0"),
    ("llm.prompt_template.variables", r#"{"var_str":"2"}"#),
];

/// A span, and one below it.
fn work() {
    info_span!("work").in_scope(|| info_span!("step").in_scope(|| {}));
}
